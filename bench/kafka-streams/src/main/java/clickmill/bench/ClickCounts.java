package clickmill.bench;

import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.CloseOptions.GroupMembershipOperation;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.LogAndContinueExceptionHandler;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Clickmill's job as a Kafka Streams program: clicks by ad, counted in tumbling windows, exactly once. Prints {@code RUNNING} when it
 * runs and, when it has stopped (SIGTERM), one line of JSON with what it has done and what that took.
 */
final class ClickCounts {
    private static final String STORE = "ad-clicks-store";
    /** Ad id and timestamp are all that has to go through the repartition topic. Records without a value would not be counted. */
    private static final byte[] SLIM = {};
    private static final Duration CLOSE_TIMEOUT = Duration.ofSeconds(30);

    private ClickCounts() {}

    public static void main(String[] args) {
        Command.main(ClickCounts::run, args);
    }

    private static Topology topology(String topic, TimeWindows windows, Duration retention) {
        Serde<Click> clicks = Serdes.serdeFrom((name, click) -> {
            throw new UnsupportedOperationException("clicks are only read");
        }, new ClickDeserializer());
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(topic, Consumed.with(Serdes.ByteArray(), clicks).withTimestampExtractor(new EventTime()))
                .map((user, click) -> KeyValue.pair(click.adId(), SLIM))
                .groupByKey(Grouped.with(Serdes.String(), Serdes.ByteArray()))
                .windowedBy(windows)
                .count(Materialized.<String, Long, WindowStore<Bytes, byte[]>>as(STORE).withRetention(retention));
        return builder.build();
    }

    private static int run(Options options) throws InterruptedException {
        String topic = options.text("topic", "click-events-topic");
        Duration size = Duration.ofMillis(options.number("window-ms", 300_000));
        Duration grace = Duration.ofMillis(options.number("grace-ms", 0));
        Duration retention = Duration.ofMillis(options.number("retention-ms", 86_400_000));
        Properties config = config(options);
        options.end();

        Topology topology = topology(topic, TimeWindows.ofSizeAndGrace(size, grace), retention);
        KafkaStreams streams = new KafkaStreams(topology, config);
        return runUntilStopped(streams);
    }

    private static Properties config(Options options) {
        Properties config = new Properties();
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.text("bootstrap", "127.0.0.1:9092"));
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, options.text("application-id", "click-counts"));
        config.put(StreamsConfig.STATE_DIR_CONFIG, options.required("state-dir"));
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, (int) options.number("threads", 2));
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, options.number("commit-ms", 100));
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        config.put(StreamsConfig.DESERIALIZATION_EXCEPTION_HANDLER_CLASS_CONFIG, LogAndContinueExceptionHandler.class);
        config.put(StreamsConfig.METRIC_REPORTER_CLASSES_CONFIG, FinalMetrics.class.getName());
        for (String property : options.all("property")) {
            String[] pair = property.split("=", 2);
            if (pair.length < 2) {
                throw new Options.UsageException("--property " + property + ": accepted is name=value");
            }
            config.put(pair[0], pair[1]);
        }
        return config;
    }

    private static int runUntilStopped(KafkaStreams streams) throws InterruptedException {
        CountDownLatch failed = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(e -> {
            e.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.setStateListener((state, before) -> {
            if (state == KafkaStreams.State.RUNNING) {
                System.out.println("RUNNING");
            } else if (state == KafkaStreams.State.ERROR) {
                failed.countDown();
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> stop(streams)));
        streams.start();
        failed.await();
        return 1;
    }

    /** Leaves the group, or the next start would wait for this member's session to run out. */
    private static void stop(KafkaStreams streams) {
        boolean stopped = streams.close(
                CloseOptions.timeout(CLOSE_TIMEOUT).withGroupMembershipOperation(GroupMembershipOperation.LEAVE_GROUP));
        System.out.println(FinalMetrics.json(stopped));
        System.out.flush();
    }
}
