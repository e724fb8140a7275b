package clickmill.bench;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The command line as pairs of {@code --name value}. A name may come several times where its reader asks for all of its values. Each
 * reading takes the name away; {@link #end} refuses what nobody has read.
 */
final class Options {
    private final Map<String, List<String>> values = new LinkedHashMap<>();

    Options(String... args) {
        for (int i = 0; i < args.length; i += 2) {
            if (!args[i].startsWith("--") || i + 1 == args.length) {
                throw new UsageException(args[i] + ": accepted are pairs of --name value");
            }
            values.computeIfAbsent(args[i].substring(2), name -> new ArrayList<>()).add(args[i + 1]);
        }
    }

    /** All values of an option, in order; none where it was not given. */
    List<String> all(String name) {
        List<String> given = values.remove(name);
        return given == null ? List.of() : given;
    }

    String text(String name, String otherwise) {
        List<String> given = all(name);
        if (given.size() > 1) {
            throw new UsageException("--" + name + " is given twice");
        }
        return given.isEmpty() ? otherwise : given.get(0);
    }

    String required(String name) {
        String given = text(name, null);
        if (given == null) {
            throw new UsageException("--" + name + " is missing");
        }
        return given;
    }

    long number(String name, long otherwise) {
        String given = text(name, null);
        try {
            return given == null ? otherwise : Long.parseLong(given);
        } catch (NumberFormatException e) {
            throw new UsageException("--" + name + " " + given + ": accepted is a whole number");
        }
    }

    double real(String name, double otherwise) {
        String given = text(name, null);
        try {
            return given == null ? otherwise : Double.parseDouble(given);
        } catch (NumberFormatException e) {
            throw new UsageException("--" + name + " " + given + ": accepted is a number");
        }
    }

    /** To be called once everything is read. */
    void end() {
        if (!values.isEmpty()) {
            throw new UsageException("--" + values.keySet().iterator().next() + ": there is no such option");
        }
    }

    /** A command line that cannot be obeyed. The message names the option. */
    static final class UsageException extends RuntimeException {
        private static final long serialVersionUID = 1L;

        UsageException(String message) {
            super(message);
        }
    }
}
