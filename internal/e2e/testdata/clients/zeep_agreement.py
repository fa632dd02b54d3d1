"""Makes agreements with zeep, by the description alone: python3 zeep_agreement.py URL

For each version of SOAP: takes a template, fills in a job and a deadline, makes the
agreement and reads its states to the end; makes one for capacity and ends it; offers what
can't be had, and reads why; negotiates. Prints a line for each, exits 1 if one failed.
"""
import datetime
import sys
import time

import zeep
from lxml import etree

WSAG = "http://schemas.ggf.org/graap/2007/03/ws-agreement"
BF = "http://docs.oasis-open.org/wsrf/bf-2"
P = "http://portolan-project.org/ns/2026/agreement"
JSDL = "http://schemas.ggf.org/jsdl/2005/11/jsdl"
POSIX = "http://schemas.ggf.org/jsdl/2005/11/jsdl-posix"

url = sys.argv[1]
failed = False
patience = 120  # seconds


def want(condition, what):
    if not condition:
        raise AssertionError(what)


def element(space, local, *content):
    e = etree.Element("{%s}%s" % (space, local))
    for c in content:
        if isinstance(c, str):
            e.text = c
        else:
            e.append(c)
    return e


def job(script):
    application = element(
        POSIX, "POSIXApplication", element(POSIX, "Executable", "/bin/sh"), element(POSIX, "Argument", "-c"),
        element(POSIX, "Argument", script), element(POSIX, "WallTimeLimit", "60"))
    return element(JSDL, "JobDefinition", element(JSDL, "JobDescription", element(JSDL, "Application", application)))


def moment(seconds):
    t = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return t.strftime("%Y-%m-%dT%H:%M:%SZ")


def key_of(answer, what="CreatedAgreementEPR", local="AgreementKey"):
    """The reference parameter of an EPR, as a header; zeep gives its text."""
    epr = answer[what]
    return [element(P, local, epr["ReferenceParameters"]["_value_1"][0])]


def name(local):
    return etree.QName(WSAG, local)


def until(what, ask, is_so):
    for _ in range(10 * patience):
        answer = ask()
        if is_so(answer):
            return answer
        time.sleep(0.1)
    raise AssertionError("never %s: %s" % (what, answer))


def drive(suffix):
    global failed
    mode = "soap12" if suffix else "soap11"
    client = zeep.Client(url + "?wsdl")

    def port(name):
        return client.bind("AgreementFactoryService", name + "Port" + suffix)

    factory, agreement, state = port("AgreementFactory"), port("Agreement"), port("AgreementState")
    pending_factory = port("PendingAgreementFactory")

    def template(kind):
        """The offer that a template is, to be filled in; there is one once the gateway knows its site."""
        named = lambda found: [t for t in found if t["Name"] == kind + "@hosts/shell"]
        t = named(until("a template", lambda: factory.GetResourceProperty(name("Template")), named))[0]
        return {"Name": "zeep " + mode, "Context": t["Context"], "Terms": t["Terms"]}

    def fill(offer, term, content):
        for t in offer["Terms"]["All"]["_value_1"]:
            d = t.get("ServiceDescriptionTerm")
            if d is not None and d["Name"] == term:
                d["_value_1"] = content
                return
        raise AssertionError("the template has no term " + term)

    def states(headers):
        wanted = [name(n) for n in ("AgreementState", "GuaranteeTermState", "ServiceTermState")]
        found = state.GetMultipleResourceProperties(ResourceProperty=wanted, _soapheaders=headers)
        terms = {e["termName"]: e["State"] for e in found[1:]}
        return found[0]["State"], terms, found

    def finished(headers):
        now, terms, found = until("complete", lambda: states(headers), lambda x: x[0] not in ("Pending", "Observed"))
        want(now == "Complete" and terms["finish"] == "Fulfilled" and terms["job"] == "Completed", str(found))
        # Why it is so stands beside the states.
        events = {e["name"] for e in found[0]["Agreement"]["Event"]}
        want({"accepted", "completed"} <= events or {"decided", "completed"} <= events, str(events))
        of_job = next(e for e in found[1:] if e["termName"] == "job")
        want(of_job["_value_1"].findtext("{%s}State" % P) == "Finished", str(of_job))

    def templates():
        names = [t["Name"] for t in factory.GetResourcePropertyDocument()]
        for kind in ("best-effort", "finish-by", "advance-reservation", "capacity"):
            template(kind)
            want(kind + "@hosts/shell" in names, str(names))

    def finish_by():
        o = template("finish-by")
        fill(o, "job", job("echo done"))
        fill(o, "finishBy", element(P, "FinishBy", moment(1800)))
        headers = key_of(factory.CreateAgreement(AgreementOffer=o))
        document = agreement.GetResourcePropertyDocument(_soapheaders=headers)
        want(document["Name"] == "zeep " + mode and document["AgreementState"]["State"] in ("Observed", "Complete"), str(document))
        finished(headers)

    def pending():
        o = template("finish-by")
        fill(o, "job", job("echo done"))
        fill(o, "finishBy", element(P, "FinishBy", moment(1800)))
        finished(key_of(pending_factory.CreatePendingAgreement(AgreementOffer=o)))

    def reserve():
        o = template("advance-reservation")
        fill(o, "job", job("exit 0"))
        window = element(P, "Window", element(P, "StartTime", moment(2)), element(P, "EndTime", moment(900)))
        fill(o, "window", window)
        headers = key_of(factory.CreateAgreement(AgreementOffer=o))
        now, terms, found = until("complete", lambda: states(headers), lambda x: x[0] not in ("Observed",))
        want(now == "Complete" and terms["start"] == "Fulfilled" and terms["job"] == "Completed", str(found))

    def capacity():
        o = template("capacity")
        content = [element(P, *x) for x in (
            ("Site", "hosts"), ("Share", "shell"), ("CPUs", "1"), ("StartTime", moment(7200)), ("EndTime", moment(10800)))]
        fill(o, "capacity", element(P, "Capacity", *content))
        headers = key_of(factory.CreateAgreement(AgreementOffer=o))
        now, terms, found = states(headers)
        want(now == "Observed" and terms["capacity"] == "NotReady", str(found))
        agreement.Terminate(_value_1=element("urn:test", "Why", "no longer needed"), _soapheaders=headers)
        now, _, found = until("terminated", lambda: states(headers), lambda x: not x[0].endswith("AndTerminating"))
        want(now == "Terminated", str(found))
        try:
            agreement.Terminate(_value_1=element("urn:test", "Why", "again"), _soapheaders=headers)
        except zeep.exceptions.Fault as f:
            want("Terminated" in f.message, f.message)
            return
        raise AssertionError("it was ended twice")

    def refused():
        o = template("capacity")
        content = [element(P, *x) for x in (
            ("Site", "hosts"), ("Share", "shell"), ("CPUs", "5000"), ("StartTime", moment(7200)), ("EndTime", moment(10800)))]
        fill(o, "capacity", element(P, "Capacity", *content))
        try:
            factory.CreateAgreement(AgreementOffer=o)
        except zeep.exceptions.Fault as f:
            want("5000" in f.message and "cpus" in f.message, f.message)
            # What is typed in the description is typed here.
            detail = client.wsdl.types.deserialize(f.detail[0])
            code = f.detail.find(".//{%s}ErrorCode" % BF)
            want(code is not None and code.text == "NotCompliant", etree.tostring(f.detail))
            said = [d["_value_1"] for d in detail["Description"]]
            want(len(said) >= 1 and "5000" in said[0] and detail["Timestamp"] is not None, str(detail))
            return
        raise AssertionError("the offer was taken")

    def unknown():
        try:
            states([element(P, "AgreementKey", "nothing")])
        except zeep.exceptions.Fault as f:
            want(f.detail[0].tag.endswith("}ResourceUnknownFault"), etree.tostring(f.detail))
            return
        raise AssertionError("there is an agreement that there is not")

    def negotiate():
        second = zeep.Client(url + "?wsdl=negotiation")

        def port(name):
            return second.bind("NegotiationFactoryService", name + "Port" + suffix)

        context = {"NegotiationType": {"Negotiation": {"_value_1": []}}, "AgreementResponder": "NegotiationResponder"}
        opened = port("NegotiationFactory").InitiateNegotiation(NegotiationContext=context)
        headers = key_of(opened, "CreatedNegotiationEPR", "NegotiationKey")
        o = template("finish-by")
        fill(o, "job", job("echo done"))
        fill(o, "finishBy", element(P, "FinishBy", moment(1800)))
        o["OfferId"] = "mine"
        o["NegotiationOfferContext"] = {
            "CounterOfferTo": o["Context"]["TemplateId"], "Creator": "NegotiationInitiator", "State": {"Solicited": {}}}
        o["NegotiationConstraints"] = {"Item": []}
        answer = port("Negotiation").Negotiate(NegotiationOffer=[o], _soapheaders=headers)
        counter = answer["NegotiationCounterOffer"][0]
        answered = counter["NegotiationOfferContext"]
        want(answered["CounterOfferTo"] == "mine" and answered["State"]["Acceptable"] is not None, str(answer))
        want(answered["State"]["Acceptable"]["_value_1"]["End"] is not None, str(answered))
        # What was quoted is taken: the extension says which it is.
        taken = {
            "ResponderNegotiationEPR": opened["CreatedNegotiationEPR"], "NegotiationOfferContext": {
                "CounterOfferTo": counter["OfferId"], "Creator": "NegotiationInitiator", "State": {"Acceptable": {}}}}
        taken["ResponderNegotiationEPR"]["ReferenceParameters"]["_value_1"] = headers
        extension = second.get_element("{http://schemas.ogf.org/graap/2009/11/ws-agreement-negotiation}NegotiationExtension")
        parent = etree.Element("parent")
        extension.render(parent, extension(**taken))
        offer = {"Name": counter["Name"], "Context": counter["Context"], "Terms": counter["Terms"]}
        finished(key_of(factory.CreateAgreement(AgreementOffer=offer, NoncriticalExtension=[{"_value_1": parent[0]}])))
        port("Negotiation").Terminate(_soapheaders=headers)

    for deed in (templates, finish_by, pending, reserve, capacity, refused, unknown, negotiate):
        try:
            deed()
            print("ok", deed.__name__, mode)
        except Exception as e:  # whatever it is, it is told
            failed = True
            print("FAIL", deed.__name__, mode, type(e).__name__, str(e)[:1500].replace("\n", " "))


drive("")
drive("12")
sys.exit(1 if failed else 0)
