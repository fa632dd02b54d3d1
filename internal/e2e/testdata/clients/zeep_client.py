"""Drives a BES endpoint with zeep, as its users would: python3 zeep_client.py URL

Every operation of the factory and management port types, over SOAP 1.1 and 1.2,
with and without WS-Addressing. Prints a line for each, exits 1 if one failed.
"""
import sys

import zeep
from lxml import etree
from zeep.wsa import WsAddressingPlugin

BF = "http://schemas.ggf.org/bes/2006/08/bes-factory"
POSIX = "http://schemas.ggf.org/jsdl/2005/11/jsdl-posix"
WSA = "http://www.w3.org/2005/08/addressing"
STATES = {"Pending", "Running", "Cancelled", "Failed", "Finished"}

url = sys.argv[1]
failed = False


def check(name, mode, deed):
    global failed
    try:
        result = deed()
        print("ok", name, mode)
        return result
    except Exception as e:  # noqa: BLE001: any failure is a line of the report
        failed = True
        print("FAIL", name, mode, "%s: %s" % (type(e).__name__, str(e).replace("\n", " ")))
        return None


def want(condition, what):
    if not condition:
        raise AssertionError(what)


class Answers(zeep.Plugin):
    """Keeps the last answer, to look at its headers."""

    def ingress(self, envelope, http_headers, operation):
        self.envelope = envelope
        return envelope, http_headers


def drive(suffix, addressing):
    mode = ("soap12" if suffix else "soap11") + (" wsa" if addressing else "")
    answers = Answers()
    plugins = [WsAddressingPlugin(), answers] if addressing else [answers]
    client = zeep.Client(url + "?wsdl", plugins=plugins)
    factory = client.bind("BasicExecutionService", "BESFactoryPort" + suffix)
    management = client.bind("BasicExecutionService", "BESManagementPort" + suffix)

    app = client.get_element("{%s}POSIXApplication" % POSIX)
    argument = client.get_type("{%s}Argument_Type" % POSIX)
    executable = client.get_type("{%s}FileName_Type" % POSIX)
    posix = app(Executable=executable("/bin/sleep"), Argument=[argument("60")])
    job = {
        "JobDescription": {
            "JobIdentification": {"JobName": "zeep " + mode},
            "Application": {"_value_1": [zeep.xsd.AnyObject(app, posix)]},
            "Resources": {"TotalCPUCount": {"Exact": [1]}},
        }
    }

    def create():
        r = factory.CreateActivity(ActivityDocument={"JobDefinition": job})
        epr = r["ActivityIdentifier"]
        want(epr["Address"]["_value_1"].startswith("http"), "no address in %s" % epr)
        if addressing:
            action = answers.envelope.findtext(".//{%s}Action" % WSA)
            want(action == BF + "/BESFactoryPortType/CreateActivityResponse", "the answer's action is %s" % action)
            want(answers.envelope.findtext(".//{%s}RelatesTo" % WSA), "the answer has no RelatesTo")
        return epr

    epr = check("CreateActivity", mode, create)
    if epr is None:
        return
    unknown = {"Address": "http://elsewhere.example/bes/a/none"}

    def statuses():
        r = factory.GetActivityStatuses(ActivityIdentifier=[epr, unknown])["Response"]
        want(len(r) == 2, "%d items for 2 activities" % len(r))
        want(r[0]["ActivityStatus"]["state"] in STATES, "the state is %s" % r[0]["ActivityStatus"])
        want(r[0]["Fault"] is None, "a fault for a good activity: %s" % r[0]["Fault"])
        want(r[0]["ActivityIdentifier"]["Address"]["_value_1"] == epr["Address"]["_value_1"], "another activity's status")
        want(r[1]["ActivityStatus"] is None and "Client" in str(r[1]["Fault"]["faultcode"]), "no fault for an unknown activity: %s" % r[1])
        detail = r[1]["Fault"]["detail"]["_value_1"][0]
        text = etree.tostring(detail).decode() if isinstance(detail, etree._Element) else str(detail)
        want("Message" in text, "the fault of an unknown activity says %s" % text)

    check("GetActivityStatuses", mode, statuses)

    def documents():
        r = factory.GetActivityDocuments(ActivityIdentifier=[epr, unknown])["Response"]
        desc = r[0]["JobDefinition"]["JobDescription"]
        want(desc["JobIdentification"]["JobName"] == "zeep " + mode, "the job's name is %s" % desc["JobIdentification"])
        got = desc["Application"]["_value_1"][0]
        if isinstance(got, etree._Element):
            text = got.findtext("{%s}Executable" % POSIX)
        else:
            text = got["Executable"]["_value_1"]
        want(text == "/bin/sleep", "the executable is %s" % text)
        want(r[1]["JobDefinition"] is None and r[1]["Fault"] is not None, "a document for an unknown activity")

    check("GetActivityDocuments", mode, documents)

    def attributes():
        a = factory.GetFactoryAttributesDocument()["FactoryResourceAttributesDocument"]
        want(a["IsAcceptingNewActivities"] is True, "it takes no activities")
        want(a["TotalNumberOfActivities"] >= 1, "it has %s activities" % a["TotalNumberOfActivities"])
        want(len(a["NamingProfile"]) >= 1 and a["LocalResourceManagerType"], "required attributes are missing")
        want(len(a["ContainedResource"]) <= a["TotalNumberOfContainedResources"], "more resources than there are")

    check("GetFactoryAttributesDocument", mode, attributes)

    def terminate():
        r = factory.TerminateActivities(ActivityIdentifier=[epr, unknown])["Response"]
        want(r[0]["Terminated"] is True and r[0]["Fault"] is None, "terminating gives %s" % r[0])
        want(r[1]["Terminated"] is False and r[1]["Fault"] is not None, "terminating an unknown activity gives %s" % r[1])

    check("TerminateActivities", mode, terminate)

    def stop():
        management.StopAcceptingNewActivities()
        try:
            factory.CreateActivity(ActivityDocument={"JobDefinition": job})
        except zeep.exceptions.Fault as f:
            detail = etree.tostring(f.detail).decode()
            want("NotAcceptingNewActivitiesFault" in detail, "the fault is %s" % detail)
            return
        raise AssertionError("a stopped service took an activity")

    check("StopAcceptingNewActivities", mode, stop)

    def start():
        management.StartAcceptingNewActivities()
        a = factory.GetFactoryAttributesDocument()["FactoryResourceAttributesDocument"]
        want(a["IsAcceptingNewActivities"] is True, "it takes no activities after it was started")

    check("StartAcceptingNewActivities", mode, start)


for suffix in ("", "12"):
    for addressing in (False, True):
        drive(suffix, addressing)
sys.exit(1 if failed else 0)
