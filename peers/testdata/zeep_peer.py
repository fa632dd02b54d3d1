"""Is a gateway's peer, with zeep, by the description alone: python3 zeep_peer.py URL DOMAIN KEY

Opens a session, gives signs of life, asks for a job and closes, over SOAP 1.1 and 1.2, with
the WS-Addressing that the description's actions make zeep send. Prints a line for each,
exits 1 if one failed.
"""
import datetime
import sys
import uuid

import zeep
from lxml import etree

P = "http://portolan-project.org/ns/2026/peer"
TEST = "urn:portolan:test:trust"

url, domain, key = sys.argv[1:]
failed = False


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def headers():
    who = etree.Element("{%s}From" % TEST, nsmap={"t": TEST})
    who.set("domain", domain)
    who.set("key", key)
    trace = etree.Element("{%s}Trace" % P, nsmap={"p": P})
    trace.set("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    return [who, trace]


def want(condition, what):
    if not condition:
        raise AssertionError(what)


def drive(suffix):
    global failed
    mode = "soap12" if suffix else "soap11"
    client = zeep.Client(url + "?wsdl")
    peer = client.bind("PeerService", "PeerPort" + suffix)
    session, instance = "urn:uuid:%s" % uuid.uuid4(), "urn:uuid:%s" % uuid.uuid4()
    number = 0

    def frame(**more):
        nonlocal number
        number += 1
        base = {"session": session, "number": number, "heard": 0, "sent": 0, "got": 0, "done": 0, "limit": 100, "clock": now(), "_soapheaders": headers()}
        base.update(more)
        return base

    def opened():
        r = peer.OpenSession(
            session=session, instance=instance, beat=1000, lost=6000, window=100, clock=now(), domain=domain, software="zeep", role="peer",
            provides=True, consumes=True, shows="none", every=0, VO=["bio"], Version=["1"], Feature=["output"],
            Terms={"lease": 600000, "skew": 5000, "stopWithin": 30000, "resend": 10000, "keep": 1000}, _soapheaders=headers())
        want(r["session"] == session and r["version"] == "1", "the answer is %s" % r)
        want(r["Feature"] == ["output"], "the features are %s" % r["Feature"])
        want(r["Terms"]["lease"] == 600000, "the terms are %s" % r["Terms"])

    def heartbeat():
        r = peer.Heartbeat(**frame())
        want(r["session"] == session and r["number"] >= 1 and r["heard"] == number, "the answer is %s" % r)

    def exchange():
        item = {"Query": {"origin": domain, "id": "7", "token": "1"}}
        r = peer.Exchange(**frame(hold=5000, first=1, sent=1, _value_1=[item]))
        want(r["got"] == 1 and r["done"] == 1, "the answer is %s" % r)

    def resume():
        r = peer.ResumeSession(instance=instance, **frame(sent=1))
        want(r["got"] == 1, "the answer is %s" % r)

    def fault():
        try:
            peer.Heartbeat(**frame(session="no-such"))
        except zeep.exceptions.Fault as e:
            detail = etree.tostring(e.detail).decode() if e.detail is not None else ""
            want("UnknownSession" in detail, "the fault is %s %s" % (e, detail))
            return
        raise AssertionError("there was no fault")

    def closed():
        r = peer.CloseSession(reason="shutdown", **frame(closing="ended", sent=1))
        want(r["closing"] == "ended", "the answer is %s" % r)

    for name, deed in [("OpenSession", opened), ("Heartbeat", heartbeat), ("Exchange", exchange), ("ResumeSession", resume), ("fault", fault), ("CloseSession", closed)]:
        try:
            deed()
            print("ok", name, mode)
        except Exception as e:  # noqa: BLE001: any failure is a line of the report
            failed = True
            print("FAIL", name, mode, "%s: %s" % (type(e).__name__, str(e).replace("\n", " ")))


for suffix in ["", "Soap12"]:
    drive(suffix)
sys.exit(failed)
