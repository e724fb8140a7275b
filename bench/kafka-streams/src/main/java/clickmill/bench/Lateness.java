package clickmill.bench;

import java.util.Arrays;

/**
 * Says which clicks are late in their own partition: those whose window had ended, by grace and more, at the largest event time that
 * came before them there.
 */
final class Lateness {
    private final long windowSize;
    private final long grace;
    private final long[] streamTimes;

    Lateness(long windowSize, long grace, int partitions) {
        this.windowSize = windowSize;
        this.grace = grace;
        streamTimes = new long[partitions];
        Arrays.fill(streamTimes, -1);
    }

    /** To be asked once for each click, in the order of its partition. */
    boolean isLate(int partition, long timestamp) {
        long windowEnd = timestamp - timestamp % windowSize + windowSize;
        boolean late = windowEnd + grace <= streamTimes[partition];
        streamTimes[partition] = Math.max(streamTimes[partition], timestamp);
        return late;
    }
}
