package clickmill.bench;

import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * What a counter of the generated clicks has to arrive at, made without one: every click, those that are not late in their own
 * partition, and which ones are.
 */
final class Tally {
    private final long windowSize;
    private final Lateness lateness;
    private final String allFile;
    private final String expectedFile;
    private final PrintStream lateClicks;
    private final Counts all = new Counts();
    private final Counts expected = new Counts();
    private long late;

    Tally(Options options, int partitions) throws IOException {
        windowSize = options.number("window-ms", 300_000);
        lateness = new Lateness(windowSize, options.number("grace-ms", 0), partitions);
        allFile = options.text("tally", null);
        expectedFile = options.text("expected", null);
        String lateFile = options.text("late-clicks", null);
        lateClicks = lateFile == null ? null : new PrintStream(Files.newOutputStream(Path.of(lateFile)), false, "UTF-8");
    }

    void add(int partition, Traffic click) {
        long timestamp = click.timestamp();
        long windowStart = timestamp - timestamp % windowSize;
        boolean isLate = lateness.isLate(partition, timestamp);
        if (allFile != null) {
            all.add(click.adId(), windowStart, 1);
        }
        if (isLate) {
            late++;
            if (lateClicks != null) {
                lateClicks.append(click.clickId()).append('\n');
            }
        } else if (expectedFile != null) {
            expected.add(click.adId(), windowStart, 1);
        }
    }

    long late() {
        return late;
    }

    void write() throws IOException {
        if (allFile != null) {
            all.write(allFile);
        }
        if (expectedFile != null) {
            expected.write(expectedFile);
        }
        if (lateClicks != null) {
            lateClicks.close();
            if (lateClicks.checkError()) {
                throw new IOException("the late clicks could not be written");
            }
        }
    }
}
