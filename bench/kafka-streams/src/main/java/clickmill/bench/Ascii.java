package clickmill.bench;

import java.util.Arrays;

/** Text put together in one buffer: formatting would be most of what a generated click costs. */
final class Ascii {
    private byte[] buffer = new byte[512];
    private int length;

    Ascii clear() {
        length = 0;
        return this;
    }

    Ascii put(String ascii) {
        reserve(ascii.length());
        for (int i = 0; i < ascii.length(); i++) {
            buffer[length++] = (byte) ascii.charAt(i);
        }
        return this;
    }

    /** A number that is not negative, in decimal. */
    Ascii put(long number) {
        if (number < 0) {
            throw new IllegalArgumentException(number + " is negative");
        }
        int digits = 1;
        for (long rest = number / 10; rest > 0; rest /= 10) {
            digits++;
        }
        reserve(digits);
        length += digits;
        long rest = number;
        for (int at = length - 1; digits > 0; digits--, at--) {
            buffer[at] = (byte) ('0' + rest % 10);
            rest /= 10;
        }
        return this;
    }

    byte[] bytes() {
        return Arrays.copyOf(buffer, length);
    }

    private void reserve(int more) {
        if (length + more > buffer.length) {
            buffer = Arrays.copyOf(buffer, 2 * (length + more));
        }
    }
}
