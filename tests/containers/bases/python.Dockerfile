# python:3.11.17-slim-bookworm: CPython below /usr/local of Debian 12.
FROM whisperline-test/debian:bookworm
COPY python/bin /usr/local/bin
COPY python/lib /usr/local/lib
COPY python/libpython3.11.so.1.0 python/libffi.so* /usr/local/lib/
RUN cd /usr/local/bin && chmod 755 * && ln -sf python3.11 python3 && ln -sf python3.11 python && ldconfig
CMD ["python3"]
