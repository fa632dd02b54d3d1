// Drives a BES endpoint with the proxies that Mono's wsdl tool makes, as its
// users would:
//
//	wsdl -out:Bes.cs URL?wsdl
//	mcs -r:System.Web.Services.dll -out:client.exe Bes.cs Client.cs Addressing.cs
//	mono client.exe URL
//
// Every operation of the factory and management port types, over SOAP 1.1 and
// 1.2, with and without WS-Addressing (client.exe.config loads that extension).
// Prints a line for each, exits 1 if one failed.
using System;
using System.Linq;
using System.Web.Services.Protocols;
using System.Xml;

static class Client
{
	const string POSIX = "http://schemas.ggf.org/jsdl/2005/11/jsdl-posix";
	static bool failed;

	static void Want(bool condition, string what)
	{
		if (!condition) throw new Exception(what);
	}

	static void Check(string name, string mode, Action deed)
	{
		try
		{
			deed();
			Console.WriteLine("ok {0} {1}", name, mode);
		}
		catch (Exception e)
		{
			failed = true;
			Console.WriteLine("FAIL {0} {1} {2}", name, mode, (e.GetType().Name + ": " + e.Message).Replace("\n", " "));
		}
	}

	static ActivityDocumentType Job(string name)
	{
		var x = new XmlDocument();
		x.LoadXml("<posix:POSIXApplication xmlns:posix=\"" + POSIX + "\"><posix:Executable>/bin/sleep</posix:Executable>" +
			"<posix:Argument>60</posix:Argument></posix:POSIXApplication>");
		return new ActivityDocumentType
		{
			JobDefinition = new JobDefinition_Type
			{
				JobDescription = new JobDescription_Type
				{
					JobIdentification = new JobIdentification_Type { JobName = name },
					Application = new Application_Type { Any = new[] { x.DocumentElement } },
				},
			},
		};
	}

	static void Drive(string url, SoapProtocolVersion version, string mode)
	{
		var factory = new BESFactoryBinding { Url = url, SoapVersion = version };
		var management = new BESManagementBinding { Url = url, SoapVersion = version };
		XmlElement[] any = null;
		XmlAttribute[] attributes = null;
		EndpointReferenceType epr = null;

		Func<EndpointReferenceType> create = () =>
		{
			var document = Job("mono " + mode);
			any = null;
			attributes = null;
			return factory.CreateActivity(ref document, ref any, ref attributes);
		};
		Check("CreateActivity", mode, () =>
		{
			var replies = Addressing.Replies;
			epr = create();
			Want(Addressing.On == (Addressing.Replies > replies), "the addressing extension is not loaded");
			Want(epr.Address.Value.StartsWith("http"), "there is no address");
			Want(epr.ReferenceParameters.Any.Any(p => p.LocalName == "ActivityId"), "there is no reference parameter");
		});
		if (epr == null) return;
		var unknown = new EndpointReferenceType { Address = new AttributedURIType { Value = "http://elsewhere.example/bes/a/none" } };
		var both = new[] { epr, unknown };

		Check("GetActivityStatuses", mode, () =>
		{
			any = null;
			attributes = null;
			var r = factory.GetActivityStatuses(both, ref any, ref attributes);
			Want(r.Length == 2, r.Length + " items for 2 activities");
			Want(Enum.IsDefined(typeof(ActivityStateEnumeration), r[0].ActivityStatus.state), "the state is not one");
			Want(r[0].Fault == null, "there is a fault for a good activity");
			Want(r[0].ActivityIdentifier.Address.Value == epr.Address.Value, "the status is of another activity");
			Want(r[1].ActivityStatus == null && r[1].Fault != null, "there is no fault for an unknown activity");
			Want(r[1].Fault.faultcode.Name == "Client", "the fault's code is " + r[1].Fault.faultcode);
		});
		Check("GetActivityDocuments", mode, () =>
		{
			any = null;
			attributes = null;
			var r = factory.GetActivityDocuments(both, ref any, ref attributes);
			Want(r[0].JobDefinition.JobDescription.JobIdentification.JobName == "mono " + mode, "the job has another name");
			Want(r[0].JobDefinition.JobDescription.Application.Any[0].OuterXml.Contains("/bin/sleep"), "the job has another application");
			Want(r[1].JobDefinition == null && r[1].Fault != null, "there is a document for an unknown activity");
		});
		Check("GetFactoryAttributesDocument", mode, () =>
		{
			any = null;
			attributes = null;
			var a = factory.GetFactoryAttributesDocument(ref any, ref attributes);
			Want(a.IsAcceptingNewActivities, "it takes no activities");
			Want(a.TotalNumberOfActivities >= 1, "it has no activities");
			Want(a.NamingProfile.Length >= 1 && a.LocalResourceManagerType != "", "required attributes are missing");
		});
		Check("TerminateActivities", mode, () =>
		{
			any = null;
			attributes = null;
			var r = factory.TerminateActivities(both, ref any, ref attributes);
			Want(r[0].Terminated && r[0].Fault == null, "a running activity was not terminated");
			Want(!r[1].Terminated && r[1].Fault != null, "an unknown activity was terminated");
		});
		Check("StopAcceptingNewActivities", mode, () =>
		{
			any = null;
			attributes = null;
			management.StopAcceptingNewActivities(ref any, ref attributes);
			try
			{
				create();
			}
			catch (SoapException e)
			{
				Want(e.Detail != null && e.Detail.OuterXml.Contains("NotAcceptingNewActivitiesFault"), "the fault is " + e.Message);
				return;
			}
			throw new Exception("a stopped service took an activity");
		});
		Check("StartAcceptingNewActivities", mode, () =>
		{
			any = null;
			attributes = null;
			management.StartAcceptingNewActivities(ref any, ref attributes);
			var a = factory.GetFactoryAttributesDocument(ref any, ref attributes);
			Want(a.IsAcceptingNewActivities, "it takes no activities after it was started");
		});
	}

	static int Main(string[] args)
	{
		foreach (var addressing in new[] { false, true })
		{
			Addressing.On = addressing;
			var suffix = addressing ? " wsa" : "";
			Drive(args[0], SoapProtocolVersion.Soap11, "soap11" + suffix);
			Drive(args[0], SoapProtocolVersion.Soap12, "soap12" + suffix);
		}
		return failed ? 1 : 0;
	}
}
