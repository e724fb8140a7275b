package clickmill.bench;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.streams.processor.internals.TopicPartitionMetadata;

/**
 * A group's committed offsets and the stream times in their metadata, as Kafka Streams decodes it: lines of topic, partition, offset and
 * stream time between tabs, and the entries of the processors' metadata that were asked for ({@code --entry NAME}; {@code -} is none).
 */
final class CommittedOffsets {
    private CommittedOffsets() {}

    static int run(Options options) throws Exception {
        String bootstrap = options.text("bootstrap", "127.0.0.1:9092");
        String group = options.required("group");
        List<String> entries = options.all("entry");
        options.end();

        Map<TopicPartition, OffsetAndMetadata> committed;
        try (Positions positions = new Positions(bootstrap)) {
            committed = positions.committed(group);
        }
        List<TopicPartition> partitions = new ArrayList<>(committed.keySet());
        partitions.sort(Comparator.comparing(TopicPartition::topic).thenComparing(TopicPartition::partition));
        for (TopicPartition partition : partitions) {
            System.out.println(line(partition, committed.get(partition), entries));
        }
        return 0;
    }

    private static String line(TopicPartition partition, OffsetAndMetadata committed, List<String> entries) {
        TopicPartitionMetadata metadata = TopicPartitionMetadata.decode(committed.metadata());
        StringBuilder line = new StringBuilder(partition.topic())
                .append('\t').append(partition.partition())
                .append('\t').append(committed.offset())
                .append('\t').append(metadata.partitionTime());
        for (String entry : entries) {
            Long value = metadata.processorMetadata().get(entry);
            line.append('\t').append(value == null ? "-" : value.toString());
        }
        return line.toString();
    }
}
