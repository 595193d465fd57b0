# apache/kafka:4.3.1: the broker's jars, its user and folders, and the command that its entry point runs.
FROM whisperline-test/debian:bookworm
RUN apt-get update -qq && mkdir -p /usr/share/man/man1 \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless \
 && rm -rf /var/lib/apt/lists/*
COPY libs /opt/kafka/libs
COPY kafka-run.sh /etc/kafka/docker/run
RUN useradd --uid 1000 --user-group appuser \
 && mkdir -p /var/lib/kafka/data /etc/kafka/secrets /mnt/shared/config /opt/kafka/config /opt/kafka/logs \
 && touch /etc/kafka/docker/server.properties /etc/kafka/docker/log4j2.yaml /etc/kafka/docker/tools-log4j2.yaml \
 && chmod 755 /etc/kafka/docker/run && chown -R appuser /var/lib/kafka /etc/kafka /mnt/shared/config /opt/kafka/config /opt/kafka/logs
USER appuser
VOLUME ["/etc/kafka/secrets", "/var/lib/kafka/data", "/mnt/shared/config"]
EXPOSE 9092
CMD ["/etc/kafka/docker/run"]
