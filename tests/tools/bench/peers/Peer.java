// The benchmark's job on Kafka Streams: one result for each create, exactly once, sessions in state stores.
//
// Two stores, as one would write it: "sessions" keeps the counter and the live numbers of a session,
// "checkpoints" the data of each checkpoint. Retention is the plain cap. Settings are the documentation's for
// exactly once: exactly_once_v2 and its default commit interval of 100 ms. What it lacks beside Waypost: a
// database to query, commands other than create, retries that count once, names, pins and ages.
//
// Arguments: bootstrap servers, topic prefix, threads, state directory.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

public final class Peer {
    private static final int CAP = 100;

    static final class Sessions implements Processor<String, byte[], String, byte[]> {
        private final ObjectMapper json = new ObjectMapper();
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, byte[]> sessions;
        private KeyValueStore<String, byte[]> checkpoints;

        @Override
        public void init(ProcessorContext<String, byte[]> context) {
            this.context = context;
            sessions = context.getStateStore("sessions");
            checkpoints = context.getStateStore("checkpoints");
        }

        @Override
        public void process(Record<String, byte[]> record) {
            try {
                JsonNode command = json.readTree(record.value());
                String session = record.key();
                byte[] stored = sessions.get(session);
                // The counter and the lowest live number: without pins and names, live numbers are a range.
                long counter = stored == null ? 0 : ByteBuffer.wrap(stored).getLong(0);
                long lowest = stored == null ? 1 : ByteBuffer.wrap(stored).getLong(8);
                counter++;
                byte[] data = json.writeValueAsBytes(command.get("data"));
                checkpoints.put(session + ":" + counter, data);
                ObjectNode result = json.createObjectNode().put("session_id", session);
                ArrayNode removed = json.createArrayNode();
                if (counter - lowest >= CAP) {
                    checkpoints.delete(session + ":" + lowest);
                    removed.add(session + ":" + lowest);
                    lowest++;
                }
                sessions.put(session, ByteBuffer.allocate(16).putLong(counter).putLong(lowest).array());
                Header id = record.headers().lastHeader("ce_id");
                Header taken = record.headers().lastHeader("ce_time");
                RecordMetadata place = context.recordMetadata().orElseThrow();
                ObjectNode checkpoint = result.putObject("checkpoint");
                checkpoint.put("id", session + ":" + counter).set("name", command.get("name"));
                checkpoint.put("timestamp", new String(taken.value(), StandardCharsets.UTF_8));
                checkpoint.put("recorded_at", Instant.ofEpochMilli(record.timestamp()).toString());
                checkpoint.set("data", command.get("data"));
                checkpoint.putObject("metadata");
                checkpoint.put("pinned", false);
                result.set("removed", removed);
                result.putObject("command").put("id", new String(id.value(), StandardCharsets.UTF_8))
                    .put("partition", place.partition()).put("offset", place.offset());
                context.forward(record.withValue(json.writeValueAsBytes(result)));
            } catch (java.io.IOException error) {
                throw new java.io.UncheckedIOException(error);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        String prefix = arguments[1];
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, prefix + "-streams");
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments[2]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[3]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, "1");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");

        Topology topology = new Topology();
        var text = Serdes.String();
        var bytes = Serdes.ByteArray();
        topology.addSource("commands", text.deserializer(), bytes.deserializer(), prefix + ".commands");
        topology.addProcessor("apply", Sessions::new, "commands");
        for (String store : new String[] {"sessions", "checkpoints"}) {
            topology.addStateStore(
                Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(store), text, bytes), "apply");
        }
        topology.addSink("results", prefix + ".results", text.serializer(), bytes.serializer(), "apply");

        KafkaStreams streams = new KafkaStreams(topology, settings);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
                System.out.println("{\"state\": \"ready\"}");
                System.out.flush();
            }
        });
        streams.start();
        while (System.in.read() >= 0) {
            // The end of standard input means that the parent wants an end.
        }
        streams.close(java.time.Duration.ofSeconds(10));
        System.exit(0);
    }
}
