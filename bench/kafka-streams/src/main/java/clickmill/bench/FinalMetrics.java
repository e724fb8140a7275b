package clickmill.bench;

import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.common.metrics.KafkaMetric;
import org.apache.kafka.common.metrics.MetricsReporter;

/**
 * Adds up the counters of Kafka Streams over all threads, tasks and topics. A counter goes with its task, so it is read at its end, which
 * also holds where tasks have moved in between. Kafka makes the reporters itself, hence the sums are static.
 */
public final class FinalMetrics implements MetricsReporter {
    private static final Set<String> COUNTERS = Set.of(
            "stream-thread-metrics/process-total",
            "stream-thread-metrics/commit-total",
            "stream-task-metrics/dropped-records-total",
            "stream-topic-metrics/records-consumed-total",
            "stream-topic-metrics/bytes-consumed-total",
            "stream-topic-metrics/records-produced-total",
            "stream-topic-metrics/bytes-produced-total");
    private static final Map<String, Double> SUMS = new TreeMap<>();

    @Override
    public void metricRemoval(KafkaMetric metric) {
        String name = metric.metricName().group() + "/" + metric.metricName().name();
        if (!COUNTERS.contains(name)) {
            return;
        }
        String topic = metric.metricName().tags().get("topic");
        String key = metric.metricName().name() + (topic == null ? "" : ":" + topic);
        synchronized (SUMS) {
            SUMS.merge(key, (Double) metric.metricValue(), Double::sum);
        }
    }

    /** Everything in one line: the counters, and the processor time and peak memory of this process. */
    static String json(boolean stoppedCleanly) {
        StringBuilder out = new StringBuilder("{\"stopped_cleanly\":").append(stoppedCleanly);
        synchronized (SUMS) {
            SUMS.forEach((name, sum) -> out.append(String.format(Locale.ROOT, ",\"%s\":%.0f", name, sum)));
        }
        return out.append(String.format(Locale.ROOT, ",\"cpu_seconds\":%.3f", cpuSeconds()))
                .append(",\"peak_memory_kb\":").append(peakMemoryKb())
                .append('}').toString();
    }

    private static double cpuSeconds() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime() / 1e9;
    }

    /** As Linux tells it; -1 elsewhere. */
    private static long peakMemoryKb() {
        try {
            for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
                if (line.startsWith("VmHWM:")) {
                    return Long.parseLong(line.replaceAll("\\D", ""));
                }
            }
        } catch (IOException e) {
            // Another operating system.
        }
        return -1;
    }

    @Override
    public void init(List<KafkaMetric> metrics) {}

    @Override
    public void metricChange(KafkaMetric metric) {}

    @Override
    public void close() {}

    @Override
    public void configure(Map<String, ?> configs) {}
}
