package clickmill.bench;

import java.util.Arrays;

/** Reads what a counter has left on Kafka, with Java's own clients and deserializers. */
final class Check {
    private static final String USAGE = "accepted is one of: changelog, closed, offsets, caught-up";

    private Check() {}

    public static void main(String[] args) {
        Command check = args.length == 0 ? null : named(args[0]);
        if (check == null) {
            System.err.println(USAGE);
            System.exit(2);
        }
        Command.main(check, Arrays.copyOfRange(args, 1, args.length));
    }

    private static Command named(String name) {
        return switch (name) {
            case "changelog" -> Changelog::run;
            case "closed" -> ClosedWindows::run;
            case "offsets" -> CommittedOffsets::run;
            case "caught-up" -> CaughtUp::run;
            default -> null;
        };
    }
}
