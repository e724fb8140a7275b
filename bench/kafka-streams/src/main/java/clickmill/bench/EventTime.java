package clickmill.bench;

import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.streams.processor.TimestampExtractor;

/** The click's own time; the record's where the click has none. */
final class EventTime implements TimestampExtractor {
    @Override
    public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
        long timestamp = ((Click) record.value()).timestamp();
        return timestamp == Click.NO_TIMESTAMP ? record.timestamp() : timestamp;
    }
}
