package clickmill.bench;

import java.util.SplittableRandom;

/** Generated clicks, one after the other. The same options and seed give the same clicks. */
final class Traffic {
    private static final int USERS = 1_000_000;
    private static final int CAMPAIGNS = 500;
    private static final int PAGES = 20_000;
    private static final String[] COUNTRIES = {"DE", "FR", "US", "GB", "IN", "JP", "BR", "PL"};
    private static final String[] USER_AGENTS = {
        "Mozilla/5.0 (X11; Linux x86_64)",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1)",
        "Mozilla/5.0 (Windows NT 10.0; Win64)",
        "Mozilla/5.0 (Linux; Android 15; Pixel 9)",
    };

    private final Ads ads;
    private final SplittableRandom random;
    private final long seed;
    private final long start;
    private final long span;
    private final long count;
    private final long disorder;
    private final double lateShare;
    private final long lateBy;
    private final Ascii text = new Ascii();

    private long written;
    private int ad;
    private int user;
    private long arrival;
    private long timestamp;

    Traffic(Options options) {
        seed = options.number("seed", 1);
        random = new SplittableRandom(seed);
        count = options.number("count", 1_000_000);
        ads = new Ads((int) options.number("ads", 100_000), options.real("zipf", 1));
        start = options.number("start-ms", 1_767_225_600_000L);
        span = options.number("span-ms", 3_600_000);
        disorder = options.number("disorder-ms", 0);
        lateShare = options.real("late", 0);
        lateBy = options.number("late-by-ms", 600_000);
    }

    long count() {
        return count;
    }

    /** Goes on to the next click; false after the last. */
    boolean next() {
        if (written == count) {
            return false;
        }
        arrival = start + written * span / count;
        written++;
        ad = ads.draw(random);
        user = random.nextInt(USERS);
        long setBack = 0;
        if (lateShare > 0 && random.nextDouble() < lateShare) {
            setBack = random.nextLong(lateBy, 2 * lateBy + 1);
        } else if (disorder > 0) {
            setBack = random.nextLong(disorder + 1);
        }
        timestamp = Math.max(0, arrival - setBack);
        return true;
    }

    String adId() {
        return "ad-" + ad;
    }

    String clickId() {
        return "c-" + seed + "-" + written;
    }

    /** When the record was written: rises from click to click. */
    long arrival() {
        return arrival;
    }

    /** Event time: the arrival, or before. */
    long timestamp() {
        return timestamp;
    }

    /** The user, by whom clicks are spread over the partitions. */
    byte[] key() {
        return text.clear().put("u-").put(user).bytes();
    }

    /** The click as Clickmill's own generator writes it. To be called once a click: it draws. */
    byte[] value() {
        int bits = random.nextInt() & Integer.MAX_VALUE;
        return text.clear()
                .put("{\"click_id\":\"c-").put(seed).put("-").put(written)
                .put("\",\"ad_id\":\"ad-").put(ad)
                .put("\",\"timestamp\":").put(timestamp)
                .put(",\"user_id\":\"u-").put(user)
                .put("\",\"campaign\":\"campaign-").put(bits % CAMPAIGNS)
                .put("\",\"url\":\"https://shop.example/p/").put((bits >> 8) % PAGES)
                .put("\",\"country\":\"").put(COUNTRIES[(bits >> 24) % COUNTRIES.length])
                .put("\",\"user_agent\":\"").put(USER_AGENTS[(bits >> 27) % USER_AGENTS.length])
                .put("\"}").bytes();
    }
}
