// WS-Addressing 1.0 for proxies of Mono's wsdl tool, which know nothing of it: an
// extension that adds To, Action, MessageID and ReplyTo to each request, all to
// be understood, and holds the reply against them.
using System;
using System.Linq;
using System.Web.Services.Protocols;
using System.Xml;
using System.Xml.Serialization;

public class Addressing : SoapExtension
{
	const string WSA = "http://www.w3.org/2005/08/addressing";

	// On says whether requests are to carry addressing headers.
	public static bool On;

	// Replies counts those that were held against their requests, so that a client
	// knows whether this extension was loaded at all.
	public static int Replies;

	string id, action;

	public override object GetInitializer(Type service) { return null; }
	public override object GetInitializer(LogicalMethodInfo method, SoapExtensionAttribute attribute) { return null; }
	public override void Initialize(object initializer) { }

	public override void ProcessMessage(SoapMessage message)
	{
		if (!On) return;
		switch (message.Stage)
		{
			case SoapMessageStage.BeforeSerialize:
				id = "urn:uuid:" + Guid.NewGuid();
				action = message.Action;
				message.Headers.Add(new To { Value = message.Url, MustUnderstand = true });
				message.Headers.Add(new ActionHeader { Value = action, MustUnderstand = true });
				message.Headers.Add(new MessageID { Value = id, MustUnderstand = true });
				message.Headers.Add(new ReplyTo { Address = WSA + "/anonymous", MustUnderstand = true });
				break;
			case SoapMessageStage.AfterDeserialize:
				if (message.Exception != null) return;
				var seen = message.Headers.Cast<SoapHeader>().OfType<SoapUnknownHeader>().Select(h => h.Element).ToList();
				Want(seen, "RelatesTo", id);
				Want(seen, "Action", action + "Response");
				Replies++;
				break;
		}
	}

	static void Want(System.Collections.Generic.List<XmlElement> seen, string name, string value)
	{
		var e = seen.FirstOrDefault(x => x.NamespaceURI == WSA && x.LocalName == name);
		if (e == null) throw new Exception("the reply has no wsa:" + name);
		if (e.InnerText.Trim() != value) throw new Exception("wsa:" + name + " is " + e.InnerText + ", wanted " + value);
	}

	[XmlRoot("To", Namespace = WSA)]
	public class To : SoapHeader { [XmlText] public string Value; }

	[XmlRoot("Action", Namespace = WSA)]
	public class ActionHeader : SoapHeader { [XmlText] public string Value; }

	[XmlRoot("MessageID", Namespace = WSA)]
	public class MessageID : SoapHeader { [XmlText] public string Value; }

	[XmlRoot("ReplyTo", Namespace = WSA)]
	public class ReplyTo : SoapHeader { [XmlElement(Namespace = WSA)] public string Address; }
}
