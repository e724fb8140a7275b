package clickmill.bench;

/** What a program of this project does; how it ends is the same for all of them. */
@FunctionalInterface
interface Command {
    /** The exit status. */
    int run(Options options) throws Exception;

    /** Runs a command and exits: 2 for a wrong command line, 1 for anything else that fails. */
    static void main(Command command, String... args) {
        int status;
        try {
            status = command.run(new Options(args));
        } catch (Options.UsageException e) {
            System.err.println(e.getMessage());
            status = 2;
        } catch (Exception e) {
            e.printStackTrace();
            status = 1;
        }
        System.exit(status);
    }
}
