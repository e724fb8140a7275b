package clickmill.bench;

import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.config.TopicConfig;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.Utils;

/** Writes generated clicks to a topic, keyed by user, and what counting them has to give. Prints one line of JSON at the end. */
final class Generate {
    private Generate() {}

    public static void main(String[] args) {
        Command.main(Generate::run, args);
    }

    private static int run(Options options) throws Exception {
        long begun = System.nanoTime();
        String bootstrap = options.text("bootstrap", "127.0.0.1:9092");
        String topic = options.text("topic", "click-events-topic");
        int toCreate = (int) options.number("partitions", 0);
        Traffic traffic = new Traffic(options);
        if (toCreate > 0) {
            create(bootstrap, topic, toCreate);
        }
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config(bootstrap, options))) {
            int partitions = producer.partitionsFor(topic).size();
            Tally tally = new Tally(options, partitions);
            Pace pace = new Pace(options.number("rate", 0));
            options.end();
            long bytes = send(producer, topic, partitions, traffic, pace, tally);
            tally.write();
            System.out.printf("{\"clicks\":%d,\"late\":%d,\"partitions\":%d,\"value_bytes\":%d,\"ms\":%d}%n",
                    traffic.count(), tally.late(), partitions, bytes, (System.nanoTime() - begun) / 1_000_000);
        }
        return 0;
    }

    /** Without retention, and for event times in any year: what is generated may be old, and has to stay. */
    private static void create(String bootstrap, String topic, int partitions) throws InterruptedException, ExecutionException {
        NewTopic wanted = new NewTopic(topic, Optional.of(partitions), Optional.empty()).configs(Map.of(
                TopicConfig.RETENTION_MS_CONFIG, "-1",
                TopicConfig.MESSAGE_TIMESTAMP_AFTER_MAX_MS_CONFIG, Long.toString(Long.MAX_VALUE)));
        try (Admin admin = Admin.create(Map.of(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap))) {
            admin.createTopics(List.of(wanted)).all().get();
        }
    }

    /** Idempotent, as it is by default: each partition holds its clicks once and in the order of sending. */
    private static Properties config(String bootstrap, Options options) {
        Properties config = new Properties();
        config.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        config.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, options.text("compression", "none"));
        config.put(ProducerConfig.BATCH_SIZE_CONFIG, 1 << 18);
        config.put(ProducerConfig.LINGER_MS_CONFIG, 20);
        config.put(ProducerConfig.BUFFER_MEMORY_CONFIG, 1L << 26);
        config.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class);
        config.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class);
        return config;
    }

    private static long send(KafkaProducer<byte[], byte[]> producer, String topic, int partitions, Traffic traffic, Pace pace,
            Tally tally) throws Exception {
        AtomicReference<Exception> failed = new AtomicReference<>();
        long bytes = 0;
        while (traffic.next() && failed.get() == null) {
            pace.await();
            byte[] key = traffic.key();
            byte[] value = traffic.value();
            bytes += value.length;
            // Where the default partitioner would put it. It is named because the tally depends on it.
            int partition = Utils.toPositive(Utils.murmur2(key)) % partitions;
            tally.add(partition, traffic);
            producer.send(new ProducerRecord<>(topic, partition, traffic.arrival(), key, value), (sent, error) -> {
                if (error != null) {
                    failed.compareAndSet(null, error);
                }
            });
        }
        producer.flush();
        if (failed.get() != null) {
            throw failed.get();
        }
        return bytes;
    }
}
