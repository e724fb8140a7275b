package clickmill.bench;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.TimeoutException;
import java.util.function.Consumer;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Deserializer;

/** Reads all that is committed on a topic, once, from its beginning to the end that it has when reading begins. */
final class TopicReader {
    private static final Duration POLL = Duration.ofMillis(500);
    /** A transaction that is left open ends at its timeout, and Kafka Streams lets those be 10 seconds at most; rdkafka's are a minute. */
    private static final long STALLED_NANOS = Duration.ofSeconds(90).toNanos();

    private TopicReader() {}

    static <K, V> void read(String bootstrap, String topic, Deserializer<K> keys, Deserializer<V> values,
            Consumer<ConsumerRecord<K, V>> visit) throws Exception {
        Map<TopicPartition, Long> ends;
        try (Positions positions = new Positions(bootstrap)) {
            ends = positions.ends(positions.partitions(topic));
        }
        try (KafkaConsumer<K, V> consumer = new KafkaConsumer<>(config(bootstrap), keys, values)) {
            consumer.assign(ends.keySet());
            consumer.seekToBeginning(ends.keySet());
            long progress = System.nanoTime();
            while (!reached(consumer, ends)) {
                Iterable<ConsumerRecord<K, V>> records = consumer.poll(POLL);
                for (ConsumerRecord<K, V> record : records) {
                    visit.accept(record);
                    progress = System.nanoTime();
                }
                if (System.nanoTime() - progress > STALLED_NANOS) {
                    throw new TimeoutException(topic + ": nothing more comes, and its end is not reached");
                }
            }
        }
    }

    /** By position, which passes the markers of transactions too. */
    private static boolean reached(KafkaConsumer<?, ?> consumer, Map<TopicPartition, Long> ends) {
        for (Map.Entry<TopicPartition, Long> end : ends.entrySet()) {
            if (consumer.position(end.getKey()) < end.getValue()) {
                return false;
            }
        }
        return true;
    }

    private static Properties config(String bootstrap) {
        Properties config = new Properties();
        config.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        config.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
        config.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 10_000);
        config.put(ConsumerConfig.METRIC_REPORTER_CLASSES_CONFIG, List.of());
        return config;
    }
}
