package clickmill.bench;

import java.util.Arrays;
import java.util.SplittableRandom;

/** Draws ads by Zipf's law: ad k (from 1) in proportion to 1 / k^exponent. An exponent of 0 treats all alike. */
final class Ads {
    /** The share of all clicks that the ads up to this one get. */
    private final double[] upTo;

    Ads(int ads, double exponent) {
        upTo = new double[ads];
        double sum = 0;
        for (int i = 0; i < ads; i++) {
            sum += Math.pow(i + 1, -exponent);
            upTo[i] = sum;
        }
        for (int i = 0; i < ads; i++) {
            upTo[i] /= sum;
        }
    }

    /** The number of an ad, from 1. */
    int draw(SplittableRandom random) {
        int found = Arrays.binarySearch(upTo, random.nextDouble());
        return (found >= 0 ? found + 1 : -found - 1) + 1;
    }
}
