package bes

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

// Bounds on parts of requests.
const (
	maxSubmissionID = 1024            // bytes
	maxEchoed       = 4 << 20         // bytes of namespace declarations that echoes of references may add
	maxWait         = 4 * time.Minute // below the time that soap.NewHTTPServer gives an answer
	maxDeclared     = 120             // attributes of a job's document, inherited declarations included
)

// request reads one message of a stranger.
type request struct {
	*soap.Parsed
	op string
}

// path is the place of e in the message, from the Body's child on.
func (r request) path(e *etree.Element) string {
	return strings.TrimPrefix(r.Document.Path(e), "/Envelope/Body")
}

// invalid is an InvalidRequestMessage that names the element e.
func (r request) invalid(e *etree.Element, format string, args ...any) error {
	path := r.path(e)
	what := fmt.Sprintf(format, args...)
	return &requestError{
		cause:    fail.Errorf("bes."+r.op, fail.Invalid, path, "line %s: %s: %s", r.Document.Position(e), path, what),
		elements: []string{path + ": " + what},
	}
}

func (r request) unsupported(e *etree.Element, what string) error {
	path := r.path(e)
	return &requestError{
		cause:    fail.Errorf("bes."+r.op, fail.Unsupported, path, "line %s: %s: %s", r.Document.Position(e), path, what),
		elements: []string{path + ": " + what},
	}
}

// sequence walks the children of e: first those that own takes, then foreign
// ones (the schema's any*, ##other), which other takes. Text is an error.
func (r request) sequence(e *etree.Element, own func(c *etree.Element, n xmldoc.Name) (taken bool, err error), other func(c *etree.Element, n xmldoc.Name) error) error {
	var stranger *etree.Element // the first foreign element
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.CharData:
			if strings.Trim(t.Data, " \t\r\n") != "" {
				return r.invalid(e, "holds the text %s; it takes elements only", quoted(t.Data))
			}
		case *etree.Element:
			n := r.Document.Name(t)
			taken, err := own(t, n)
			switch {
			case err != nil:
				return err
			case taken && stranger != nil:
				return r.invalid(t, "stands behind the extension %s; extensions come last", quoted(stranger.Tag))
			case taken:
			case n.Space == "" || n.Space == r.Document.Name(e).Space:
				return r.invalid(t, "%s does not belong into %s", quoted(n.String()), e.Tag)
			default:
				if stranger == nil {
					stranger = t
				}
				if err := other(t, n); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func none(*etree.Element, xmldoc.Name) (bool, error) { return false, nil }

// foreign takes an extension that is not known: it has no effect, unless its
// sender insists.
func (r request) foreign(c *etree.Element, n xmldoc.Name) error {
	if v, ok := xmldoc.Attr(c, NSPortolan, "mustUnderstand"); ok {
		if must, valid := parseBool(v); !valid || must {
			return r.unsupported(c, "the extension "+quoted(n.String())+" must be understood and is not known here")
		}
	}
	return nil
}

// createActivity reads bf:CreateActivity.
func (r request) createActivity(o jsdl.Options) (*CreateActivityRequest, error) {
	req := new(CreateActivityRequest)
	note := func(c *etree.Element, n xmldoc.Name) error {
		if err := r.foreign(c, n); err != nil {
			return err
		}
		if len(req.Ignored) < 100 && !slices.Contains(req.Ignored, n) {
			req.Ignored = append(req.Ignored, n)
		}
		return nil
	}
	var document *etree.Element
	err := r.sequence(r.Payload, func(c *etree.Element, n xmldoc.Name) (bool, error) {
		if n != (xmldoc.Name{Space: NSFactory, Local: "ActivityDocument"}) {
			return false, nil
		}
		if document != nil {
			return true, r.invalid(c, "is the second ActivityDocument; create one activity with each request")
		}
		document = c
		return true, nil
	}, func(c *etree.Element, n xmldoc.Name) error {
		if n != (xmldoc.Name{Space: NSPortolan, Local: "SubmissionId"}) {
			return note(c, n)
		}
		id := xmldoc.Collapse(xmldoc.Text(c))
		switch {
		case req.SubmissionID != "":
			return r.invalid(c, "is the second SubmissionId; an activity has one")
		case id == "":
			return r.invalid(c, "is empty; expected a URI of your own making, such as urn:uuid:…")
		case len(id) > maxSubmissionID:
			return r.invalid(c, "has %d bytes; at most %d are taken", len(id), maxSubmissionID)
		}
		req.SubmissionID = strings.Clone(id)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if document == nil {
		return nil, r.invalid(r.Payload, "ActivityDocument is missing; it holds the job as a jsdl:JobDefinition")
	}
	var job *etree.Element
	err = r.sequence(document, func(c *etree.Element, n xmldoc.Name) (bool, error) {
		if n != (xmldoc.Name{Space: jsdl.NS, Local: "JobDefinition"}) {
			return false, nil
		}
		if job != nil {
			return true, r.invalid(c, "is the second JobDefinition; create one activity with each request")
		}
		job = c
		return true, nil
	}, note)
	if err != nil {
		return nil, err
	}
	if job == nil {
		return nil, r.invalid(document, "JobDefinition of the namespace %s is missing", jsdl.NS)
	}
	var problems jsdl.Problems
	if req.Job, problems = jsdl.Decode(r.Document, job, o); jobError(problems) != nil {
		return nil, jobError(problems)
	}
	// Standing alone, the document declares all that it inherits; it must still be
	// within the limits of whoever reads it next.
	if n := len(job.Attr) + inherited(job); n > maxDeclared {
		return nil, r.invalid(job, "has or inherits %d attributes and namespace declarations, and at most %d are taken; declare only the namespaces that it uses", n, maxDeclared)
	}
	req.Document = r.Document.Standalone(job)
	return req, nil
}

// activities reads a request that holds references in the namespaces spaces,
// then extensions.
func (r request) activities(other func(*etree.Element, xmldoc.Name) error, spaces ...string) ([]soap.EPR, error) {
	var list []soap.EPR
	budget := maxEchoed
	err := r.sequence(r.Payload, func(c *etree.Element, n xmldoc.Name) (bool, error) {
		// ARC sends them in no namespace.
		if n.Local != "ActivityIdentifier" || n.Space != "" && !slices.Contains(spaces, n.Space) {
			return false, nil
		}
		if len(list) == MaxActivities {
			return true, r.invalid(r.Payload, "names more than %d activities; ask for them in several requests", MaxActivities)
		}
		copied, cost := detachUsed(c)
		if budget -= cost; budget < 0 {
			return true, r.invalid(c, "uses namespaces that are declared far above it and long; declare fewer or shorter ones, or name fewer activities")
		}
		epr, err := soap.DecodeEPR(copied)
		if err != nil {
			return true, r.invalid(c, "%s", fail.Sentence(err))
		}
		list = append(list, epr)
		return true, nil
	}, other)
	return list, err
}

// one reads the reference of a request that takes exactly one; parts takes what
// follows it in NSPortolan.
func (r request) one(parts func(c *etree.Element, local string) error) (soap.EPR, error) {
	var found *soap.EPR
	err := r.sequence(r.Payload, func(c *etree.Element, n xmldoc.Name) (bool, error) {
		switch {
		case n.Local == "ActivityIdentifier" && (n.Space == NSPortolan || n.Space == NSFactory || n.Space == ""):
			if found != nil {
				return true, r.invalid(c, "is the second ActivityIdentifier; %s takes one", r.op)
			}
			copied, cost := detachUsed(c)
			if cost > maxEchoed {
				return true, r.invalid(c, "uses too many namespaces")
			}
			epr, err := soap.DecodeEPR(copied)
			if err != nil {
				return true, r.invalid(c, "%s", fail.Sentence(err))
			}
			found = &epr
			return true, nil
		case n.Space == NSPortolan && parts != nil:
			return true, parts(c, n.Local)
		}
		return false, nil
	}, r.foreign)
	if err != nil {
		return soap.EPR{}, err
	}
	if found == nil {
		return soap.EPR{}, r.invalid(r.Payload, "ActivityIdentifier is missing")
	}
	return *found, nil
}

// statuses reads bf:GetActivityStatuses.
func (r request) statuses() (*StatusRequest, error) {
	req := new(StatusRequest)
	waits := false
	list, err := r.activities(func(c *etree.Element, n xmldoc.Name) error {
		if n != (xmldoc.Name{Space: NSPortolan, Local: "WaitForChange"}) {
			return r.foreign(c, n)
		}
		if waits {
			return r.invalid(c, "is the second WaitForChange; a request waits once")
		}
		waits = true
		value := func(name string) (string, bool) {
			v, ok := xmldoc.Attr(c, "", name)
			return xmldoc.Collapse(v), ok
		}
		v, ok := value("timeout")
		seconds, err := strconv.ParseFloat(v, 64)
		if !ok || err != nil || !(seconds >= 0) {
			return r.invalid(c, "the attribute timeout is %s; expected seconds, 0 or more", quoted(v))
		}
		req.Wait = time.Duration(min(seconds, maxWait.Seconds()) * float64(time.Second))
		if v, ok := value("after"); ok {
			if req.After, err = strconv.ParseInt(v, 10, 64); err != nil {
				return r.invalid(c, "the attribute after is %s; expected the Revision of an earlier answer", quoted(v))
			}
		}
		return nil
	}, NSFactory)
	req.Activities = list
	return req, err
}

// output is a request of GetActivityOutput.
type outputRequest struct {
	activity soap.EPR
	stream   Stream
	offset   int64
	max      int
}

func (r request) output() (*outputRequest, error) {
	q := &outputRequest{stream: Stdout, max: MaxOutput}
	seen := map[string]bool{}
	epr, err := r.one(func(c *etree.Element, local string) error {
		v := xmldoc.Collapse(xmldoc.Text(c))
		if seen[local] {
			return r.invalid(c, "stands here a second time")
		}
		seen[local] = true
		switch local {
		case "Stream":
			if q.stream = Stream(v); q.stream != Stdout && q.stream != Stderr {
				return r.invalid(c, "is %s; expected %s or %s", quoted(v), Stdout, Stderr)
			}
		case "Offset":
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || n < 0 {
				return r.invalid(c, "is %s; expected a number of bytes, 0 or more", quoted(v))
			}
			q.offset = n
		case "MaxBytes":
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || n < 1 {
				return r.invalid(c, "is %s; expected a number of bytes, 1 or more", quoted(v))
			}
			q.max = int(min(n, MaxOutput))
		default:
			return r.invalid(c, "does not belong into %s", r.op)
		}
		return nil
	})
	q.activity = epr
	return q, err
}

// empty reads a request without content of its own.
func (r request) empty() error { return r.sequence(r.Payload, none, r.foreign) }

// parseBool reads an xsd:boolean.
func parseBool(s string) (v, ok bool) {
	switch xmldoc.Collapse(s) {
	case "true", "1":
		return true, true
	case "false", "0":
		return false, true
	}
	return false, false
}

// quoted shows a stranger's text, bounded.
func quoted(s string) string {
	const most = 100
	if s = strings.TrimSpace(s); len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}
