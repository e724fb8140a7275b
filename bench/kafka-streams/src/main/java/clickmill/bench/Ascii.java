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
        if (length + ascii.length() > buffer.length) {
            buffer = Arrays.copyOf(buffer, 2 * (length + ascii.length()));
        }
        for (int i = 0; i < ascii.length(); i++) {
            buffer[length++] = (byte) ascii.charAt(i);
        }
        return this;
    }

    Ascii put(long number) {
        return put(Long.toString(number));
    }

    byte[] bytes() {
        return Arrays.copyOf(buffer, length);
    }
}
