package clickmill.bench;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.time.DateTimeException;
import java.time.Instant;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;

/** Reads {@code ad_id} and {@code timestamp} out of a click's JSON in one pass, without building a tree. */
final class ClickDeserializer implements Deserializer<Click> {
    private final JsonFactory json = new JsonFactory();

    @Override
    public Click deserialize(String topic, byte[] value) {
        if (value == null) {
            throw new SerializationException("the record has no value");
        }
        try (JsonParser parser = json.createParser(value)) {
            return read(parser);
        } catch (IOException | DateTimeException e) {
            throw new SerializationException("not a click", e);
        }
    }

    private static Click read(JsonParser parser) throws IOException {
        String adId = null;
        long timestamp = Click.NO_TIMESTAMP;
        if (parser.nextToken() != JsonToken.START_OBJECT) {
            throw new SerializationException("not a JSON object");
        }
        for (String field = parser.nextFieldName(); field != null; field = parser.nextFieldName()) {
            JsonToken token = parser.nextToken();
            switch (field) {
                case "ad_id" -> adId = parser.getValueAsString();
                case "timestamp" -> timestamp = timestamp(token, parser);
                default -> parser.skipChildren();
            }
        }
        if (adId == null || adId.isEmpty()) {
            throw new SerializationException("ad_id is missing");
        }
        return new Click(adId, timestamp);
    }

    private static long timestamp(JsonToken token, JsonParser parser) throws IOException {
        return switch (token) {
            case VALUE_NULL -> Click.NO_TIMESTAMP;
            case VALUE_NUMBER_INT -> parser.getLongValue();
            case VALUE_STRING -> Instant.parse(parser.getText()).toEpochMilli();
            default -> throw new SerializationException("timestamp is no time");
        };
    }
}
