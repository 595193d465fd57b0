#!/bin/bash
# As the entry point of apache/kafka: Kafka's own wrapper turns KAFKA_* into a configuration and formats the storage.
set -euo pipefail
export CLUSTER_ID=${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}
java="java -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp $(printf '%s:' /opt/kafka/libs/*.jar)"
said=$($java kafka.docker.KafkaDockerWrapper setup --default-configs-dir /etc/kafka/docker \
  --mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config 2>&1) \
  || grep -qi "already formatted" <<< "$said" || { echo "$said"; exit 1; }
exec $java kafka.Kafka /opt/kafka/config/server.properties
