package clickmill.bench;

/** Keeps to a number of clicks a second; what was missed by a hold-up is made up for. */
final class Pace {
    private static final long NANOS = 1_000_000_000;

    private final long perSecond;
    private final long begun = System.nanoTime();
    private long clicks;

    /** None where {@code perSecond} is 0. */
    Pace(long perSecond) {
        this.perSecond = perSecond;
    }

    /** To be called before each click. */
    void await() throws InterruptedException {
        if (perSecond == 0) {
            return;
        }
        long ahead = clicks * NANOS / perSecond - (System.nanoTime() - begun);
        clicks++;
        if (ahead > 1_000_000) {
            Thread.sleep(ahead / 1_000_000);
        }
    }
}
