package clickmill.bench;

/**
 * What the program reads of a click.
 *
 * @param adId the ad that was clicked
 * @param timestamp when, in milliseconds since the epoch, or {@link #NO_TIMESTAMP}
 */
record Click(String adId, long timestamp) {
    /** The click does not say when it was: the record's own timestamp stands. */
    static final long NO_TIMESTAMP = -1;
}
