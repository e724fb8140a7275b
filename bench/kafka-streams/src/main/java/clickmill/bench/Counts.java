package clickmill.bench;

import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** Clicks by ad and window, to be compared as text: the same counts give the same lines. */
final class Counts {
    private final Map<String, Map<Long, Long>> windowsByAd = new HashMap<>();

    void add(String adId, long windowStart, long clicks) {
        windows(adId).merge(windowStart, clicks, Long::sum);
    }

    /** What was counted before, or null. */
    Long put(String adId, long windowStart, long clicks) {
        return windows(adId).put(windowStart, clicks);
    }

    void remove(String adId, long windowStart) {
        windows(adId).remove(windowStart);
    }

    private Map<Long, Long> windows(String adId) {
        return windowsByAd.computeIfAbsent(adId, ad -> new TreeMap<>());
    }

    /** Lines of ad id, window start and clicks between tabs, sorted by ad id and window start; to standard output without a file. */
    void write(String file) throws IOException {
        if (file == null) {
            write(System.out);
            return;
        }
        try (PrintStream out = new PrintStream(Files.newOutputStream(Path.of(file)), false, "UTF-8")) {
            write(out);
        }
    }

    private void write(PrintStream out) throws IOException {
        List<String> ads = new ArrayList<>(windowsByAd.keySet());
        Collections.sort(ads);
        StringBuilder lines = new StringBuilder();
        for (String ad : ads) {
            windowsByAd.get(ad).forEach((start, clicks) ->
                    lines.append(ad).append('\t').append(start).append('\t').append(clicks).append('\n'));
            if (lines.length() > 1 << 16) {
                out.print(lines);
                lines.setLength(0);
            }
        }
        out.print(lines);
        out.flush();
        if (out.checkError()) {
            throw new IOException("the counts could not be written");
        }
    }
}
