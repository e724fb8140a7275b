package clickmill.bench;

import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;

/** Waits until a group has read its topics to their ends. */
final class CaughtUp {
    private CaughtUp() {}

    static int run(Options options) throws Exception {
        String group = options.required("group");
        List<String> topics = options.all("topic");
        long timeout = options.number("timeout-ms", 600_000);
        long interval = options.number("interval-ms", 200);
        String bootstrap = options.text("bootstrap", "127.0.0.1:9092");
        options.end();

        long begun = System.nanoTime();
        try (Positions positions = new Positions(bootstrap)) {
            while (!caughtUp(positions, group, topics)) {
                if (elapsedMs(begun) > timeout) {
                    System.err.println(group + " has not caught up in time");
                    return 1;
                }
                Thread.sleep(interval);
            }
        }
        System.out.printf("{\"caught_up_ms\":%d}%n", elapsedMs(begun));
        return 0;
    }

    /**
     * Topics in the order of the flow, each looked at after the one before it was found read: what is committed there has written all
     * that it will to the next.
     */
    private static boolean caughtUp(Positions positions, String group, List<String> topics)
            throws ExecutionException, InterruptedException {
        for (String topic : topics) {
            Map<TopicPartition, Long> ends = positions.ends(positions.partitions(topic));
            Map<TopicPartition, OffsetAndMetadata> committed = positions.committed(group);
            for (Map.Entry<TopicPartition, Long> end : ends.entrySet()) {
                OffsetAndMetadata at = committed.get(end.getKey());
                if (end.getValue() > (at == null ? 0 : at.offset())) {
                    return false;
                }
            }
        }
        return true;
    }

    private static long elapsedMs(long begunNanos) {
        return (System.nanoTime() - begunNanos) / 1_000_000;
    }
}
