package clickmill.bench;

import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.utils.internals.ByteUtils;
import org.apache.kafka.streams.kstream.TimeWindowedDeserializer;
import org.apache.kafka.streams.kstream.Windowed;

/**
 * The final counts on Clickmill's closed topic. Checks that each (ad, window) is there once, and that the rows of a window on a partition
 * are those that its end record tells of.
 */
final class ClosedWindows {
    /** The header of the end records. */
    private static final String END = "mill";

    /** Rows and clicks of a window on a partition. */
    private static final class Total {
        private long rows;
        private long clicks;
        private boolean ended;
    }

    private record Slice(int partition, long windowStart) {}

    private final String topic;
    private final TimeWindowedDeserializer<String> keys;
    private final LongDeserializer values = new LongDeserializer();
    private final Counts counts = new Counts();
    private final Map<Slice, Total> totals = new HashMap<>();
    private long ends;
    private long wrong;

    private ClosedWindows(String topic, long windowSize) {
        this.topic = topic;
        keys = new TimeWindowedDeserializer<>(new StringDeserializer(), windowSize);
    }

    static int run(Options options) throws Exception {
        String bootstrap = options.text("bootstrap", "127.0.0.1:9092");
        ClosedWindows closed = new ClosedWindows(options.required("topic"), options.number("window-ms", 300_000));
        String file = options.text("out", null);
        options.end();

        TopicReader.read(bootstrap, closed.topic, new ByteArrayDeserializer(), new ByteArrayDeserializer(), closed::visit);
        closed.counts.write(file);
        System.err.printf("%d ends of windows, %d without one yet, %d defects%n", closed.ends, closed.openSlices(), closed.wrong);
        return closed.wrong == 0 ? 0 : 1;
    }

    private void visit(ConsumerRecord<byte[], byte[]> record) {
        if (record.headers().lastHeader(END) == null) {
            visitRow(record);
        } else {
            visitEnd(record);
        }
    }

    private void visitRow(ConsumerRecord<byte[], byte[]> record) {
        Windowed<String> key = keys.deserialize(topic, record.key());
        long windowStart = key.window().start();
        long clicks = values.deserialize(topic, record.value());
        Total total = total(record.partition(), windowStart);
        total.rows++;
        total.clicks += clicks;
        if (total.ended) {
            defect(record, key + " comes after the end of its window");
        }
        Long before = counts.put(key.key(), windowStart, clicks);
        if (before != null) {
            defect(record, key + " was there with " + before + " clicks, and is again with " + clicks);
        }
    }

    private void visitEnd(ConsumerRecord<byte[], byte[]> record) {
        ends++;
        long windowStart = ByteBuffer.wrap(record.key()).getLong();
        ByteBuffer value = ByteBuffer.wrap(record.value());
        byte version = value.get();
        long rows = ByteUtils.readUnsignedVarint(value);
        long clicks = ByteUtils.readVarlong(value);
        Total total = total(record.partition(), windowStart);
        if (version != 1 || total.ended || rows != total.rows || clicks != total.clicks) {
            defect(record, String.format("the end (version %d) of window %d tells of %d rows and %d clicks, there were %d and %d%s",
                    version, windowStart, rows, clicks, total.rows, total.clicks, total.ended ? ", and an end before" : ""));
        }
        total.ended = true;
    }

    private Total total(int partition, long windowStart) {
        return totals.computeIfAbsent(new Slice(partition, windowStart), slice -> new Total());
    }

    private long openSlices() {
        return totals.values().stream().filter(total -> !total.ended).count();
    }

    private void defect(ConsumerRecord<?, ?> record, String what) {
        wrong++;
        System.err.println("partition " + record.partition() + ", offset " + record.offset() + ": " + what);
    }
}
