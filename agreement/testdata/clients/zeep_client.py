"""Makes an agreement with zeep, by the description alone: python3 zeep_client.py URL

Gets the templates, makes an agreement of the first, reads its states, asks for its end,
negotiates another, over SOAP 1.1 and 1.2. Prints a line for each, exits 1 if one failed.
"""
import sys

import zeep
from lxml import etree

WSAG = "http://schemas.ggf.org/graap/2007/03/ws-agreement"
P = "http://portolan-project.org/ns/2026/agreement"

url = sys.argv[1]
failed = False


def want(condition, what):
    if not condition:
        raise AssertionError(what)


def key_of(epr, local="AgreementKey"):
    """The reference parameter of an EPR, as a header; zeep gives its text."""
    header = etree.Element("{%s}%s" % (P, local))
    header.text = epr["ReferenceParameters"]["_value_1"][0]
    return [header]


def created(answer):
    return answer["CreatedAgreementEPR"] if "CreatedAgreementEPR" in answer else answer


def name(local):
    return etree.QName(WSAG, local)


def drive(suffix):
    global failed
    mode = "soap12" if suffix else "soap11"
    client = zeep.Client(url + "?wsdl")

    def port(name):
        return client.bind("AgreementFactoryService", name + "Port" + suffix)

    factory, pending, agreement, state = port("AgreementFactory"), port("PendingAgreementFactory"), port("Agreement"), port("AgreementState")
    made = {}

    def templates():
        found = factory.GetResourceProperty(name("Template"))
        want(len(found) == 1, str(found))
        made["template"] = found[0]
        want(found[0]["Name"] == "batch" and found[0]["TemplateId"] == "1", str(found))
        document = factory.GetResourcePropertyDocument()
        want("queueWait" in str(document), str(document))

    def offer():
        # The terms of the template as they came, but for the level, which is text there: zeep keeps
        # elements only of what may be both.
        t = made["template"]
        for term in t["Terms"]["All"]["_value_1"]:
            if term.get("GuaranteeTerm") is not None:
                level = etree.Element("{%s}Value" % P, type="duration")
                level.text = "PT10M"
                term["GuaranteeTerm"]["ServiceLevelObjective"]["KPITarget"]["CustomServiceLevel"] = {"_value_1": [level]}
        return {
            "Name": "mine",
            "Context": {"ServiceProvider": "AgreementResponder", "TemplateId": t["TemplateId"], "TemplateName": t["Name"]},
            "Terms": t["Terms"],
        }

    def create():
        epr = created(factory.CreateAgreement(AgreementOffer=offer()))
        want(epr["Address"]["_value_1"] == url, str(epr))
        made["agreement"] = key_of(epr)

    def create_pending():
        epr = created(pending.CreatePendingAgreement(AgreementOffer=offer()))
        answer = state.GetResourceProperty(name("AgreementState"), _soapheaders=key_of(epr))
        want(answer[0]["State"] == "Pending", str(answer))

    def read_states():
        properties = [name(n) for n in ("AgreementState", "GuaranteeTermState", "ServiceTermState")]
        answer = state.GetMultipleResourceProperties(ResourceProperty=properties, _soapheaders=made["agreement"])
        states = [(e["termName"] if "termName" in e else None, e["State"]) for e in answer]
        want(states == [(None, "Observed"), ("soon", "NotDetermined"), ("job", "NotReady")], str(states))

    def read_document():
        answer = agreement.GetResourcePropertyDocument(_soapheaders=made["agreement"])
        answer = answer[0] if isinstance(answer, list) else answer
        want(answer["AgreementState"]["State"] == "Observed", str(answer))
        want(answer["ServiceTermState"][0]["termName"] == "job", str(answer))

    def terminate():
        why = etree.Element("{urn:test}Why")
        why.text = "no longer needed"
        agreement.Terminate(_value_1=why, _soapheaders=made["agreement"])
        answer = state.GetResourceProperty(name("AgreementState"), _soapheaders=made["agreement"])
        want(answer[0]["State"] == "ObservedAndTerminating", str(answer))

    def refused():
        o = offer()
        o["Context"]["TemplateId"] = "77"
        try:
            factory.CreateAgreement(AgreementOffer=o)
        except zeep.exceptions.Fault as f:
            code = f.detail.find(".//{http://docs.oasis-open.org/wsrf/bf-2}ErrorCode")
            want(code is not None and code.text == "NoSuchTemplate", etree.tostring(f.detail))
            return
        raise AssertionError("the offer was taken")

    def negotiate():
        second = zeep.Client(url + "?wsdl=negotiation")

        def port(name):
            return second.bind("NegotiationFactoryService", name + "Port" + suffix)

        context = {"NegotiationType": {"Negotiation": {"_value_1": []}}, "AgreementResponder": "NegotiationResponder"}
        answer = port("NegotiationFactory").InitiateNegotiation(NegotiationContext=context)
        headers = key_of(answer["CreatedNegotiationEPR"] if "CreatedNegotiationEPR" in answer else answer, "NegotiationKey")
        o = offer()
        o["OfferId"] = "mine"
        o["NegotiationOfferContext"] = {"CounterOfferTo": "1", "Creator": "NegotiationInitiator", "State": {"Solicited": {}}}
        o["NegotiationConstraints"] = {"Item": [{
            "Name": "cpus", "Type": "Required", "Importance": 2,
            "Location": "//*[local-name()='TotalCPUCount']/*[local-name()='Exact']", "ItemConstraint": {},
        }]}
        answer = port("Negotiation").Negotiate(NegotiationOffer=[o], _soapheaders=headers)
        counter = answer["NegotiationCounterOffer"] if "NegotiationCounterOffer" in answer else answer
        want(len(counter) == 1, str(answer))
        answered = counter[0]["NegotiationOfferContext"]
        want(answered["CounterOfferTo"] == "mine" and answered["State"]["Acceptable"] is not None, str(answer))
        document = port("Negotiation").GetResourcePropertyDocument(_soapheaders=headers)
        want("NegotiationResponder" in str(document) and "queueWait" in str(document), str(document))
        port("Negotiation").Terminate(_soapheaders=headers)
        try:
            port("Negotiation").Negotiate(NegotiationOffer=[o], _soapheaders=headers)
        except zeep.exceptions.Fault as f:
            want(f.detail.find("{http://docs.oasis-open.org/wsrf/r-2}ResourceUnknownFault") is not None, etree.tostring(f.detail))
            return
        raise AssertionError("a negotiation that was ended goes on")

    for deed in (templates, create, create_pending, read_states, read_document, terminate, refused, negotiate):
        try:
            deed()
            print("ok", deed.__name__, mode)
        except Exception as e:  # whatever it is, it is told
            failed = True
            print("FAIL", deed.__name__, mode, type(e).__name__, str(e)[:1500])


drive("")
drive("12")
sys.exit(1 if failed else 0)
