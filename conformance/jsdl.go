package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

var jsdlChecks = []check{
	{"JSDL-OK-1", "JSDL 1.0 §8.1", "a POSIXApplication is accepted", accepted(func(p *probe) string { return job(posix(p.opts.Programs.True)) })},
	{"JSDL-OK-2", "HPC Profile Application 1.0", "an HPCProfileApplication is accepted", accepted(func(p *probe) string {
		return job(application("HPCProfileApplication", jsdl.NSHPCPA, p.opts.Programs.True, nil))
	})},
	{"JSDL-OK-3", "JSDL 1.0 §5, §6 (everything optional)", "identification with all its parts is accepted", accepted(func(p *probe) string {
		return job(`<jsdl:JobIdentification><jsdl:JobName>n</jsdl:JobName><jsdl:Description>d</jsdl:Description><jsdl:JobAnnotation>a</jsdl:JobAnnotation></jsdl:JobIdentification>` + posix(p.opts.Programs.True))
	})},
	{"JSDL-OK-4", "JSDL 1.0 §6.4.1; real clients (zeep: 1 becomes 1.0)", "a count written as a double is a count", acceptedOrUnsupported(func(p *probe) string {
		return job(posix(p.opts.Programs.True) + resources(`<jsdl:TotalCPUCount><jsdl:Exact>1.0</jsdl:Exact></jsdl:TotalCPUCount>`))
	})},
	{"JSDL-OK-5", "XML Schema part 2 §4.3.6 (collapse)", "white space around numbers is no part of them", acceptedOrUnsupported(func(p *probe) string {
		return job(posix(p.opts.Programs.True) + resources("<jsdl:TotalCPUCount><jsdl:Exact>\n 1 \t</jsdl:Exact></jsdl:TotalCPUCount>"))
	})},
	{"JSDL-OK-6", "JSDL 1.0 schema (##other)", "unknown foreign elements in the description pass, or are refused by name", acceptedOrUnsupported(func(p *probe) string {
		return job(posix(p.opts.Programs.True) + `<x:later xmlns:x="urn:portolan:conformance:extension"><x:much>1</x:much></x:later>`)
	})},
	{"JSDL-OK-7", "JSDL 1.0 schema (anyAttribute ##other)", "foreign attributes pass", acceptedOrUnsupported(func(p *probe) string {
		return strings.Replace(job(posix(p.opts.Programs.True)), `<jsdl:JobDescription>`, `<jsdl:JobDescription xmlns:x="urn:x" x:note="n">`, 1)
	})},
	{"JSDL-OK-8", "SPMD Application 1.0 (GFD.115) schema", "an SPMDApplication, its numbers nil or given, is accepted or refused as unsupported", acceptedOrUnsupported(func(p *probe) string {
		return job(spmd(p.opts.Programs.True, `<spmd:NumberOfProcesses xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:nil="true" actualtotalcpucount="true"/>`+
			`<spmd:ProcessesPerHost>1</spmd:ProcessesPerHost><spmd:ThreadsPerProcess actualindividualcpucount="false">1</spmd:ThreadsPerProcess>`, jsdl.VariationMPI))
	})},
	{"JSDL-INV-1", "JSDL 1.0 schema (sequence)", "elements out of order are InvalidRequestMessageFault, and the element is named", schemaInvalid("Application", func(p *probe) string {
		return job(resources("") + posix(p.opts.Programs.True))
	})},
	{"JSDL-INV-2", "JSDL 1.0 schema", "an unknown element of the JSDL namespace is InvalidRequestMessageFault, and the element is named", schemaInvalid("NoSuchElement", func(p *probe) string {
		return job(posix(p.opts.Programs.True) + `<jsdl:NoSuchElement/>`)
	})},
	{"JSDL-INV-3", "JSDL 1.0 schema (JobDescription is required)", "a JobDefinition without a JobDescription is InvalidRequestMessageFault", schemaInvalid("JobDescription", func(*probe) string {
		return `<jsdl:JobDefinition xmlns:jsdl="` + jsdl.NS + `"/>`
	})},
	{"JSDL-INV-4", "JSDL 1.0 schema (OperatingSystemTypeEnumeration)", "a word that is not in an enumeration is InvalidRequestMessageFault", schemaInvalid("OperatingSystemName", func(p *probe) string {
		return job(posix(p.opts.Programs.True) + resources(`<jsdl:OperatingSystem><jsdl:OperatingSystemType><jsdl:OperatingSystemName>PENGUIN</jsdl:OperatingSystemName></jsdl:OperatingSystemType></jsdl:OperatingSystem>`))
	})},
	{"JSDL-INV-5", "JSDL 1.0 schema (xs:double)", "a number that is none is InvalidRequestMessageFault", schemaInvalid("Exact", func(p *probe) string {
		return job(posix(p.opts.Programs.True) + resources(`<jsdl:TotalCPUCount><jsdl:Exact>many</jsdl:Exact></jsdl:TotalCPUCount>`))
	})},
	{"JSDL-INV-6", "JSDL 1.0 schema (maxOccurs=1)", "an element that is there twice is InvalidRequestMessageFault", schemaInvalid("JobName", func(p *probe) string {
		return job(`<jsdl:JobIdentification><jsdl:JobName>a</jsdl:JobName><jsdl:JobName>b</jsdl:JobName></jsdl:JobIdentification>` + posix(p.opts.Programs.True))
	})},
	{"JSDL-INV-7", "JSDL 1.0 schema (##other excludes no namespace)", "an element in no namespace is InvalidRequestMessageFault", schemaInvalid("stray", func(p *probe) string {
		return job(posix(p.opts.Programs.True) + `<stray xmlns=""/>`)
	})},
	{"JSDL-INV-8", "JSDL 1.0 schema", "an unknown unqualified attribute is InvalidRequestMessageFault", schemaInvalid("", func(p *probe) string {
		return strings.Replace(job(posix(p.opts.Programs.True)), `<jsdl:JobDescription>`, `<jsdl:JobDescription note="n">`, 1)
	})},
	{"JSDL-INV-9", "JSDL 1.0 schema (POSIX application)", "an unknown element of the POSIX namespace is InvalidRequestMessageFault", schemaInvalid("NoSuchElement", func(p *probe) string {
		return strings.Replace(job(posix(p.opts.Programs.True)), `</app:Executable>`, `</app:Executable><app:NoSuchElement/>`, 1)
	})},
	{"JSDL-UNS-1", "BES 1.0 §6.1 (UnsupportedFeatureFault)", "an application of an unknown kind is refused, naming it", unsupported("WeatherApplication", func(*probe) string {
		return job(`<jsdl:Application><w:WeatherApplication xmlns:w="urn:portolan:conformance:weather"><w:Model>9</w:Model></w:WeatherApplication></jsdl:Application>`)
	})},
	{"JSDL-UNS-2", "BES 1.0 §6.1; JSDL 1.0 §6.4.3", "a host that does not exist is refused, or the activity does not run", unfit(`<jsdl:CandidateHosts><jsdl:HostName>no-such-host.invalid</jsdl:HostName></jsdl:CandidateHosts>`)},
	{"JSDL-UNS-3", "BES 1.0 §6.1; JSDL 1.0 §6.4.27", "a million million CPUs are refused, or the activity does not run", unfit(`<jsdl:TotalCPUCount><jsdl:LowerBoundedRange>1e12</jsdl:LowerBoundedRange></jsdl:TotalCPUCount>`)},
	{"JSDL-UNS-4", "BES 1.0 §6.1; JSDL Parameter Sweep 1.0", "a parameter sweep is done or refused as unsupported, never run as one plain job unannounced", acceptedOrUnsupported(func(p *probe) string {
		return strings.Replace(job(posix(p.opts.Programs.Echo, "x")), `</jsdl:JobDefinition>`,
			`<sw:Sweep xmlns:sw="`+jsdl.NSSweep+`" xmlns:fn="`+jsdl.NSSweep+`/functions"><sw:Assignment><sw:DocumentNode><sw:NamespaceBinding ns="`+jsdl.NSPOSIX+`" prefix="po"/><sw:Match>//po:Argument[1]</sw:Match></sw:DocumentNode><fn:Values><fn:Value>a</fn:Value><fn:Value>b</fn:Value></fn:Values></sw:Assignment></sw:Sweep></jsdl:JobDefinition>`, 1)
	})},
	{"JSDL-UNS-5", "BES 1.0 §6.1; SPMD Application 1.0 (SPMDVariation)", "a parallel program of a variation that nobody has is refused, naming it", unsupported("SPMD", func(p *probe) string {
		return job(spmd(p.opts.Programs.True, `<spmd:NumberOfProcesses>1</spmd:NumberOfProcesses>`, "urn:portolan:conformance:variation"))
	})},
}

// spmd gives an Application that starts one program as several processes.
func spmd(program, numbers, variation string) string {
	return `<jsdl:Application><spmd:SPMDApplication xmlns:spmd="` + jsdl.NSSPMD + `" xmlns:po="` + jsdl.NSPOSIX + `"><po:Executable>` + escape(program) +
		`</po:Executable>` + numbers + `<spmd:SPMDVariation>` + variation + `</spmd:SPMDVariation></spmd:SPMDApplication></jsdl:Application>`
}

// resources gives a Resources element.
func resources(content string) string { return `<jsdl:Resources>` + content + `</jsdl:Resources>` }

func accepted(document func(*probe) string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		if _, err := p.createActivity(ctx, document(p)); err != nil {
			return "", err
		}
		return "accepted", nil
	}
}

// acceptedOrUnsupported is for what is valid, so that InvalidRequestMessageFault
// would be wrong, and yet need not be offered.
func acceptedOrUnsupported(document func(*probe) string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, create(document(p)))
		if err != nil {
			return "", err
		}
		if rep.fault != nil {
			return rep.String(), wantUnsupported(rep)
		}
		if _, err := p.created(rep); err != nil {
			return "", err
		}
		return "accepted", nil
	}
}

func wantUnsupported(rep *reply) error {
	if err := rep.wantFault(soap.Sender); err != nil {
		return err
	}
	d, err := rep.wantBESFault(bes.NSFactory, "UnsupportedFeatureFault")
	if err != nil {
		return err
	}
	return sequence(d, []part{{"Feature", false, true}})
}

// schemaInvalid makes a check for a document that breaks the schema. The fault
// must name the element, somewhere.
func schemaInvalid(element string, document func(*probe) string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, create(document(p)))
		if err != nil {
			return "", err
		}
		if rep.fault == nil {
			_, _ = p.created(rep) // so that the run ends what should not be there
			return "", fmt.Errorf("wanted InvalidRequestMessageFault, got %s", rep)
		}
		if err := wantInvalid(rep); err != nil {
			return "", err
		}
		if told := rep.fault.reason + " " + fullText(rep); !strings.Contains(told, element) {
			return "", fmt.Errorf("the fault does not name %s: %s", element, rep)
		}
		return rep.String(), nil
	}
}

// fullText gives all the words of a fault's detail.
func fullText(rep *reply) string {
	d := rep.fault.detailChild()
	if d == nil {
		return ""
	}
	var b strings.Builder
	for _, e := range append(all(d, bes.NSFactory, "Message"), append(all(d, bes.NSFactory, "InvalidElement"), all(d, bes.NSFactory, "Feature")...)...) {
		b.WriteString(" " + xmldoc.Text(e))
		for _, c := range e.ChildElements() {
			b.WriteString(" " + xmldoc.NameOf(c).Local)
		}
	}
	return b.String()
}

func unsupported(element string, document func(*probe) string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, create(document(p)))
		if err != nil {
			return "", err
		}
		if rep.fault == nil {
			_, _ = p.created(rep)
			return "", fmt.Errorf("wanted UnsupportedFeatureFault, got %s", rep)
		}
		if err := wantUnsupported(rep); err != nil {
			return "", err
		}
		if told := rep.fault.reason + " " + fullText(rep); !strings.Contains(told, element) {
			return "", fmt.Errorf("the fault does not name %s: %s", element, rep)
		}
		return rep.String(), nil
	}
}

// unfit makes a check for requirements that nothing meets: a fault, or an
// activity that waits or fails, never one that runs.
func unfit(requirement string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, create(job(posix(p.opts.Programs.Sleep, "600")+resources(requirement))))
		if err != nil {
			return "", err
		}
		if rep.fault != nil {
			return rep.String(), wantUnsupported(rep)
		}
		epr, err := p.created(rep)
		if err != nil {
			return "", err
		}
		for range 5 {
			s, err := p.state(ctx, epr)
			if err != nil {
				return "", err
			}
			switch s {
			case bes.Running, bes.Finished:
				return "", fmt.Errorf("requirements are no hints, yet the activity is %s", s)
			case bes.Failed:
				return "accepted, then Failed", nil
			case bes.Pending:
			case bes.Cancelled:
				return "", errors.New("the activity is Cancelled, though nobody ended it")
			}
		}
		return "accepted, Pending", nil
	}
}
