"""The serving side of a Portolan adapter in Python.

    import portolan_plugin
    portolan_plugin.serve(MyAdapter)

It needs python3-grpcio, python3-protobuf and python3-cryptography (Debian's, or the
packages grpcio, protobuf and cryptography), and adapter_pb2.py beside it, which
protoc makes of adapter.proto. What the calls mean stands there; MyAdapter has a
method for each, in Python's manner:

    MyAdapter(request)       Open: request.directory, request.settings_json; raises Problem
    properties()             -> pb.Properties
    check(definition)        raises Problem
    submit(jobs)             -> a list of handles (bytes) and Problems, one for each job
    find(tags)               -> {tag: handle}
    status(handles)          -> a list of pb.Evidence, one for each handle
    cancel(handles)          -> a list of None and Problems; so are suspend, resume,
                                hold and release, where properties() claims them, and
                                extend(extensions), where it claims lease
    output(handle, stream, offset) -> an iterator of bytes
    forget(handle)
    resources()              -> pb.ResourcesReply
    health()                 -> pb.HealthReply
    watch(stopped)           -> an iterator of lists of pb.Evidence, until the
                                threading.Event is set; where properties() claims push
    close()

Methods are called from many threads at once.
"""

import base64
import datetime
import os
import sys
import threading
import traceback
from concurrent import futures

import grpc

import adapter_pb2 as pb

VERSION = 1
COOKIE = "b7c1e0a4-portolan-adapter"
MAX_MESSAGE = 32 << 20
MAX_CHUNK = 256 << 10

_CODES = {
    pb.KIND_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    pb.KIND_UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
    pb.KIND_UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    pb.KIND_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    pb.KIND_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    pb.KIND_CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    pb.KIND_NOT_ACCEPTING: grpc.StatusCode.ABORTED,
    pb.KIND_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    pb.KIND_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    pb.KIND_UNCERTAIN: grpc.StatusCode.UNKNOWN,
    pb.KIND_INTERNAL: grpc.StatusCode.INTERNAL,
}


class Problem(Exception):
    """An error of a kind, with a sentence that tells a person what to change."""

    def __init__(self, kind, sentence, subject=""):
        super().__init__(sentence)
        self.message = pb.Problem(kind=kind, sentence=sentence[:1000], subject=subject)


def log(level, text):
    """Writes to the gateway's log: level is ERROR, WARN, INFO or DEBUG."""
    line = str(text).encode("utf-8", "replace").decode().replace("\n", " / ")
    sys.stderr.write("[%s] %s\n" % (level, line[:4000]))
    sys.stderr.flush()


def _abort(context, problem):
    """Ends a call as a whole: the Problem travels in the status' details."""
    details = pb.StatusDetails(code=_CODES[problem.kind].value[0], message=problem.sentence)
    details.details.add().Pack(problem)
    context.set_trailing_metadata((("grpc-status-details-bin", details.SerializeToString()),))
    context.abort(_CODES[problem.kind], problem.sentence)


class _Service:
    """Puts an adapter behind the calls of the protocol."""

    def __init__(self, factory):
        self.factory = factory
        self.adapter = None
        self.lock = threading.Lock()

    def Open(self, request, context):
        with self.lock:
            if self.adapter is not None:
                raise Problem(pb.KIND_CONFLICT, "the plug-in has been opened already")
            self.adapter = self.factory(request)
        return pb.OpenReply(properties=self.adapter.properties())

    def Close(self, request, context):
        with self.lock:
            adapter, self.adapter = self.adapter, None
        if adapter is not None:
            adapter.close()
        return pb.CloseReply()

    def get(self):
        adapter = self.adapter
        if adapter is None:
            raise Problem(pb.KIND_UNAVAILABLE, "the plug-in is not open")
        return adapter

    def Check(self, request, context):
        try:
            self.get().check(request.definition)
        except Problem as problem:
            return pb.CheckReply(problem=problem.message)
        return pb.CheckReply()

    def Submit(self, request, context):
        reply = pb.SubmitReply()
        for outcome in self.get().submit(list(request.jobs)):
            if isinstance(outcome, Problem):
                reply.placed.add(problem=outcome.message)
            else:
                reply.placed.add(handle=outcome)
        return reply

    def Find(self, request, context):
        found = self.get().find(list(request.tags))
        return pb.FindReply(found=[pb.Found(tag=tag, handle=handle) for tag, handle in found.items()])

    def Status(self, request, context):
        return pb.EvidenceReply(evidence=self.get().status(list(request.handles)))

    def outcomes(self, method, asked):
        do = getattr(self.get(), method, None)
        if do is None:
            raise Problem(pb.KIND_UNSUPPORTED, "the adapter does not claim the ability to " + method)
        reply = pb.OutcomesReply()
        for outcome in do(list(asked)):
            reply.outcomes.add(problem=None if outcome is None else outcome.message)
        return reply

    def Cancel(self, request, context):
        return self.outcomes("cancel", request.handles)

    def Suspend(self, request, context):
        return self.outcomes("suspend", request.handles)

    def Resume(self, request, context):
        return self.outcomes("resume", request.handles)

    def Hold(self, request, context):
        return self.outcomes("hold", request.handles)

    def Release(self, request, context):
        return self.outcomes("release", request.handles)

    def Extend(self, request, context):
        return self.outcomes("extend", request.extensions)

    def Output(self, request, context):
        for data in self.get().output(request.handle, request.stream, request.offset):
            for i in range(0, len(data), MAX_CHUNK):
                yield pb.OutputChunk(data=data[i:i + MAX_CHUNK])

    def Forget(self, request, context):
        self.get().forget(request.handle)
        return pb.ForgetReply()

    def Resources(self, request, context):
        return self.get().resources()

    def Health(self, request, context):
        return self.get().health()

    def Watch(self, request, context):
        stopped = threading.Event()
        context.add_callback(stopped.set)
        news = self.get().watch(stopped)
        yield pb.EvidenceReply()
        for batch in news:
            yield pb.EvidenceReply(evidence=batch)


def _guard(method, streams):
    """Turns what a method raises into the end of the call."""

    def failed(context, error):
        if isinstance(error, Problem):
            _abort(context, error.message)
        log("ERROR", "".join(traceback.format_exception(None, error, error.__traceback__)))
        # A fault of ours leaves open what was done.
        _abort(context, pb.Problem(kind=pb.KIND_INTERNAL, sentence="the plug-in has a fault; its log says which"))

    def unary(request, context):
        try:
            return method(request, context)
        except Exception as error:
            return failed(context, error)

    def stream(request, context):
        try:
            yield from method(request, context)
        except Exception as error:
            failed(context, error)

    return stream if streams else unary


def _handlers(service):
    """The calls of the protocol, as adapter.proto describes them."""
    handlers = {}
    for method in pb.DESCRIPTOR.services_by_name["Adapter"].methods:
        request, reply = getattr(pb, method.input_type.name), getattr(pb, method.output_type.name)
        streams = method.name in ("Output", "Watch")
        make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        handlers[method.name] = make(
            _guard(getattr(service, method.name), streams),
            request_deserializer=request.FromString, response_serializer=reply.SerializeToString)
    return grpc.method_handlers_generic_handler("portolan.adapter.v1.Adapter", handlers)


def _credentials(client):
    """A certificate of our own for one run, which only the gateway's may meet."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.utcnow()
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1)).not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256()))
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    der = certificate.public_bytes(serialization.Encoding.DER)
    credentials = grpc.ssl_server_credentials(
        [(private, pem)], root_certificates=client.encode(), require_client_auth=True)
    return credentials, base64.b64encode(der).decode().rstrip("=")


def serve(factory):
    """Serves the adapter that factory makes until the gateway has done with it."""
    if os.environ.get("PORTOLAN_ADAPTER_PLUGIN") != COOKIE:
        sys.exit("This is a plug-in of Portolan: name it as the command of a site of type plugin, or try it with `portolan adapter test`.")
    # Standard output is for the handshake: what anybody prints goes to the log.
    handshake = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    over = threading.Event()

    # What go-plugin itself asks for: is it alive, and end now. An empty reply will do.
    def raw(answer, then=lambda: None):
        def call(request, context):
            then()
            return answer
        return grpc.unary_unary_rpc_method_handler(call)

    service = _Service(factory)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=[
        ("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)])
    server.add_generic_rpc_handlers((
        _handlers(service),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": raw(b"\x08\x01")}),  # SERVING
        grpc.method_handlers_generic_handler("plugin.GRPCController", {"Shutdown": raw(b"", over.set)}),
    ))
    path = os.path.join(os.environ["PLUGIN_UNIX_SOCKET_DIR"], "plugin.sock")
    client = os.environ.get("PLUGIN_CLIENT_CERT")
    certificate = ""
    if client:
        credentials, certificate = _credentials(client)
        bound = server.add_secure_port("unix:" + path, credentials)
    else:
        bound = server.add_insecure_port("unix:" + path)
    if not bound:
        sys.exit("[ERROR] could not listen on %s" % path)
    server.start()
    handshake.write("1|%d|unix|%s|grpc|%s\n" % (VERSION, path, certificate))
    handshake.flush()

    def orphaned():  # the gateway holds the other end of standard input
        while os.read(0, 4096):
            pass
        over.set()

    threading.Thread(target=orphaned, daemon=True).start()
    over.wait()
    service.Close(None, None)
    server.stop(0.5).wait()
    os._exit(0)  # threads that still work for a call that nobody waits for
