# nvcr.io/nvidia/tritonserver:26.09-py3: Triton below /opt/tritonserver with its Python backend, and Python 3.12.
FROM whisperline-test/debian:bookworm
COPY python/bin /usr/local/bin
COPY python/lib /usr/local/lib
COPY python/libpython3.12.so.1.0 python/libffi.so* /usr/local/lib/
COPY tritonserver /opt/tritonserver
RUN cd /usr/local/bin && chmod 755 * && ln -sf python3.12 python3 && ldconfig \
 && chmod 755 /opt/tritonserver/bin/tritonserver /opt/tritonserver/backends/python/triton_python_backend_stub \
 && echo "the server of the wheel nvidia-pytriton 0.7.0" | tee /opt/tritonserver/LICENSE > /opt/tritonserver/TRITON_VERSION
ENV PATH=/opt/tritonserver/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LD_LIBRARY_PATH=/opt/tritonserver/lib
