use std::fmt::Write;

use super::spec::{End, Pipeline, Topology};
use crate::task::WindowedSpec;

impl Topology {
    /// The topology as text, in the form of Kafka Streams' `Topology#describe()`.
    pub fn describe(&self) -> String {
        let mut text = Describe { text: "Topologies:\n".to_owned(), subtopology: 0, node: 0 };
        for pipeline in &self.pipelines {
            text.pipeline(pipeline);
        }
        text.text
    }
}

struct Describe {
    text: String,
    subtopology: usize,
    node: usize,
}

enum Node {
    Source { name: String, topic: String },
    Processor { name: String, store: Option<String> },
    Sink { name: String, topic: String },
}

impl Node {
    fn name(&self) -> &str {
        match self {
            Node::Source { name, .. } | Node::Processor { name, .. } | Node::Sink { name, .. } => name,
        }
    }
}

impl Describe {
    fn pipeline(&mut self, pipeline: &Pipeline) {
        let mut nodes = vec![Node::Source { name: self.numbered("KSTREAM-SOURCE"), topic: pipeline.source.to_string() }];
        for operator in &pipeline.operators {
            nodes.push(Node::Processor { name: self.numbered(&format!("KSTREAM-{operator}")), store: None });
        }
        match &pipeline.end {
            End::Sink { topic, .. } => nodes.push(Node::Sink { name: self.numbered("KSTREAM-SINK"), topic: topic.to_string() }),
            End::Windowed(spec) => {
                if !spec.keyed {
                    nodes = self.shuffle(spec, nodes);
                }
                let name = self.numbered(&format!("KSTREAM-{}", spec.operator));
                nodes.push(Node::Processor { name, store: Some(spec.store.to_string()) });
                if let Some(output) = &spec.output {
                    nodes.push(Node::Sink { name: self.numbered("KSTREAM-SINK"), topic: output.to_string() });
                }
            }
        }
        self.subtopology(&nodes);
    }

    /// Ends a subtopology in the repartition topic and begins the next one from it.
    fn shuffle(&mut self, spec: &WindowedSpec, mut nodes: Vec<Node>) -> Vec<Node> {
        let topic = format!("{}-repartition", spec.store);
        nodes.push(Node::Processor { name: format!("{topic}-pre-aggregate"), store: None });
        nodes.push(Node::Sink { name: format!("{topic}-sink"), topic: topic.clone() });
        self.subtopology(&nodes);
        vec![Node::Source { name: format!("{topic}-source"), topic }]
    }

    fn numbered(&mut self, name: &str) -> String {
        self.node += 1;
        format!("{name}-{:010}", self.node - 1)
    }

    fn subtopology(&mut self, nodes: &[Node]) {
        let _ = writeln!(self.text, "   Sub-topology: {}", self.subtopology);
        self.subtopology += 1;
        for (i, node) in nodes.iter().enumerate() {
            let _ = match node {
                Node::Source { name, topic } => writeln!(self.text, "    Source: {name} (topics: [{topic}])"),
                Node::Processor { name, store } => {
                    writeln!(self.text, "    Processor: {name} (stores: [{}])", store.as_deref().unwrap_or(""))
                }
                Node::Sink { name, topic } => writeln!(self.text, "    Sink: {name} (topic: {topic})"),
            };
            if !matches!(node, Node::Sink { .. }) {
                let _ = writeln!(self.text, "      --> {}", nodes.get(i + 1).map_or("none", Node::name));
            }
            if i > 0 {
                let _ = writeln!(self.text, "      <-- {}", nodes[i - 1].name());
            }
        }
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Materialized, StreamsBuilder, TopologyError};
    use crate::serdes::{Bytes, Utf8};
    use crate::time::TimeWindows;
    use std::time::Duration;

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    #[test]
    fn a_topology_describes_itself() {
        let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
        builder
            .stream("clicks")
            .filter(|_, ad| !ad.is_empty())
            .group_by(|_, ad| *ad)
            .windowed_by(TimeWindows::of_size_with_no_grace(minutes(5)))
            .count(Materialized::as_("counts"))
            .to("out");
        let topology = builder.build().unwrap();
        assert_eq!(
            topology.describe(),
            "Topologies:
   Sub-topology: 0
    Source: KSTREAM-SOURCE-0000000000 (topics: [clicks])
      --> KSTREAM-FILTER-0000000001
    Processor: KSTREAM-FILTER-0000000001 (stores: [])
      --> counts-repartition-pre-aggregate
      <-- KSTREAM-SOURCE-0000000000
    Processor: counts-repartition-pre-aggregate (stores: [])
      --> counts-repartition-sink
      <-- KSTREAM-FILTER-0000000001
    Sink: counts-repartition-sink (topic: counts-repartition)
      <-- counts-repartition-pre-aggregate

   Sub-topology: 1
    Source: counts-repartition-source (topics: [counts-repartition])
      --> KSTREAM-COUNT-0000000002
    Processor: KSTREAM-COUNT-0000000002 (stores: [counts])
      --> KSTREAM-SINK-0000000003
      <-- counts-repartition-source
    Sink: KSTREAM-SINK-0000000003 (topic: out)
      <-- KSTREAM-COUNT-0000000002

"
        );
    }

    #[test]
    fn what_cannot_work_is_refused() {
        type Builder = StreamsBuilder<Bytes, Bytes>;
        let refused = |make: fn(&Builder)| {
            let builder = StreamsBuilder::with_serdes(Bytes, Bytes);
            make(&builder);
            builder.build().unwrap_err()
        };
        let windows = || TimeWindows::of_size_and_grace(minutes(5), minutes(1));
        assert_eq!(refused(|_| ()), TopologyError::Empty);
        assert_eq!(refused(|b| b.stream("a b").to("c", NullSerde, NullSerde)), TopologyError::Name("a b".into()));
        assert_eq!(refused(|b| b.stream("a").to("a", NullSerde, NullSerde)), TopologyError::Loop("a".into()));
        let twice = |b: &Builder| {
            b.stream("a").to("b", NullSerde, NullSerde);
            b.stream("a").to("c", NullSerde, NullSerde);
        };
        assert_eq!(refused(twice), TopologyError::SourceTwice("a".into()));
        let builder = StreamsBuilder::with_serdes(Bytes, Bytes);
        builder.stream("a").group_by_key().windowed_by(windows()).count(Materialized::as_("s").with_retention(minutes(5)));
        assert!(matches!(builder.build(), Err(TopologyError::Retention { needed, .. }) if needed == minutes(6)));
        let builder = StreamsBuilder::with_serdes(Bytes, Bytes);
        builder.stream("a").group_by_key().windowed_by(windows()).count(Materialized::as_("s"));
        builder.stream("b").group_by_key().windowed_by(windows()).count(Materialized::as_("s"));
        assert_eq!(builder.build().unwrap_err(), TopologyError::StoreTwice("s".into()));
    }

    struct NullSerde;

    impl crate::serdes::Serializer<Option<&[u8]>> for NullSerde {
        fn serialize(&self, value: &Option<&[u8]>, into: &mut Vec<u8>) -> bool {
            value.map(|bytes| into.extend_from_slice(bytes)).is_some()
        }
    }
}
