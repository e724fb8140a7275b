package clickmill.bench;

import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.streams.kstream.TimeWindowedDeserializer;
import org.apache.kafka.streams.kstream.Windowed;

/** The counts that a window store's changelog holds: the last value of each (ad, window). */
final class Changelog {
    private Changelog() {}

    static int run(Options options) throws Exception {
        String bootstrap = options.text("bootstrap", "127.0.0.1:9092");
        String topic = options.required("topic");
        long windowSize = options.number("window-ms", 300_000);
        String file = options.text("out", null);
        options.end();

        Counts counts = new Counts();
        try (TimeWindowedDeserializer<String> keys = new TimeWindowedDeserializer<>(new StringDeserializer(), windowSize)) {
            keys.setIsChangelogTopic(true);
            TopicReader.read(bootstrap, topic, keys, new LongDeserializer(), record -> {
                Windowed<String> key = record.key();
                if (record.value() == null) {
                    counts.remove(key.key(), key.window().start());
                } else {
                    counts.put(key.key(), key.window().start(), record.value());
                }
            });
        }
        counts.write(file);
        return 0;
    }
}
