package bes

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

// ServerOptions changes how a Service is put on the wire. The zero value is
// strict, speaks the later dialect and lets nobody in: set a Verifier.
type ServerOptions struct {
	Verifier    soap.Verifier
	ExternalURL string // the service's address as clients see it; "" takes it from each request
	Dialect     Dialect
	JSDL        jsdl.Options
	// ARC adds to the references of new activities what ARC's client wants to see
	// before it keeps track of a job: a-rex:JobID and a-rex:JobSessionDir. It is
	// off by default, since the latter promises a directory that is not served.
	ARC bool
	// StrictTerminate answers TerminateActivities by the letter: an activity that
	// is Cancelled already can't be terminated again, and one that has not ended
	// yet is answered with OperationWillBeAppliedEventuallyFault.
	StrictTerminate bool

	Limits  xmldoc.Limits // of one message
	Log     *slog.Logger  // nil discards
	Observe func(operation string, status int, took time.Duration)
}

// NewServer puts a Service on the wire: the factory and management port types,
// and the activity control port type when it is a Controller. It is to be
// mounted at its address, and at its address with "/a/{id}" behind it, to which
// the references of activities point.
func NewServer(svc Service, o ServerOptions) *soap.Endpoint {
	s := &server{svc: svc, o: o}
	if s.control, _ = svc.(Controller); s.control != nil {
		s.matcher, _ = svc.(Matcher)
	}
	return &soap.Endpoint{
		Operations:  soap.Operations(s.operations()...),
		Verifier:    o.Verifier,
		Limits:      o.Limits,
		ExternalURL: o.ExternalURL,
		Log:         o.Log,
		FaultOf: func(err error, op *soap.Operation, _ soap.Version) *soap.Fault {
			name := ""
			if op != nil {
				name = op.Name.Local
			}
			return faultOf(err, name, o.Dialect)
		},
		Describe: s.describe,
		Observe:  o.Observe,
	}
}

var _ http.Handler = (*soap.Endpoint)(nil)

type server struct {
	svc         Service
	control     Controller // nil if the service is none
	matcher     Matcher    // the same
	o           ServerOptions
	description description
}

// handler answers a request with the content of out, the element of the answer.
type handler func(ctx context.Context, r request, out *etree.Element) error

func (s *server) operations() []soap.Operation {
	ops := []soap.Operation{
		factoryPort.operation(opCreate, s.create),
		factoryPort.operation(opStatuses, s.statuses),
		factoryPort.operation(opTerminate, s.terminate),
		factoryPort.operation(opDocuments, s.documents),
		factoryPort.operation(opFactory, s.factory),
		managementPort.operation(opStop, s.switched(Service.StopAcceptingNewActivities)),
		managementPort.operation(opStart, s.switched(Service.StartAcceptingNewActivities)),
	}
	if s.control != nil {
		ops = append(ops,
			controlPort.operation(opSuspend, s.applied(Controller.SuspendActivities)),
			controlPort.operation(opResume, s.applied(Controller.ResumeActivities)),
			controlPort.operation(opHistory, s.history),
			controlPort.operation(opOutput, s.output),
		)
	}
	if s.matcher != nil {
		ops = append(ops, controlPort.operation(opMatch, s.match))
	}
	return ops
}

// operation puts a handler behind a request's element.
func (p portType) operation(name string, h handler) soap.Operation {
	return soap.Operation{
		Name:        xmldoc.Name{Space: p.space, Local: name},
		Action:      p.action(name),
		ReplyAction: p.action(name + "Response"),
		FaultAction: p.action("Fault"),
		Handle: func(ctx context.Context, m *soap.Verified) (*etree.Element, error) {
			out := p.message(name + "Response")
			if err := h(ctx, request{m.Parsed, name}, out); err != nil {
				return nil, err
			}
			return out, nil
		},
	}
}

func (s *server) create(ctx context.Context, r request, out *etree.Element) error {
	req, err := r.createActivity(s.o.JSDL)
	if err != nil {
		return err
	}
	res, err := s.svc.CreateActivity(ctx, req)
	if err != nil {
		return err
	}
	epr := res.Activity
	if s.o.ARC {
		epr = withARC(epr)
	}
	out.AddChild(epr.Element("bf", xmldoc.Name{Space: NSFactory, Local: "ActivityIdentifier"}))
	return nil
}

func (s *server) statuses(ctx context.Context, r request, out *etree.Element) error {
	req, err := r.statuses()
	if err != nil {
		return err
	}
	results, err := s.svc.GetActivityStatuses(ctx, req)
	if err != nil {
		return err
	}
	if err := counted(opStatuses, len(results), len(req.Activities)); err != nil {
		return err
	}
	for i, res := range results {
		item := s.item(factoryPort, out, req.Activities[i])
		if res.Err != nil {
			item.AddChild(itemFault("bf", res.Err, opStatuses, s.o.Dialect))
			continue
		}
		item.AddChild(encodeStatus(res.Status))
	}
	return nil
}

func (s *server) documents(ctx context.Context, r request, out *etree.Element) error {
	list, err := r.activities(r.foreign, NSFactory)
	if err != nil {
		return err
	}
	size := 0
	for from := 0; from < len(list); from += documentsAtOnce {
		part := list[from:min(from+documentsAtOnce, len(list))]
		var results []DocumentResult
		if size < maxDocuments {
			if results, err = s.svc.GetActivityDocuments(ctx, part); err != nil {
				return err
			}
			if err := counted(opDocuments, len(results), len(part)); err != nil {
				return err
			}
		}
		for i := range part {
			item := s.item(factoryPort, out, part[i])
			var job *etree.Element
			err := error(errTooManyDocuments)
			if results != nil {
				n := len(results[i].Document)
				switch err = results[i].Err; {
				case err != nil:
				case size > 0 && size+n > maxDocuments:
					err = errTooManyDocuments
				default:
					size += n
					job, err = jobElement(results[i].Document, s.o.Limits)
				}
			}
			if err != nil {
				job = itemFault("bf", err, opDocuments, s.o.Dialect)
			}
			item.AddChild(job)
		}
	}
	return nil
}

const (
	// One document, asked for a thousand times, must not fill the memory: an answer
	// holds at most so many bytes of documents, but always one.
	maxDocuments    = 4 << 20
	documentsAtOnce = 16
)

var errTooManyDocuments = fail.Errorf("bes."+opDocuments, fail.Exhausted, "", "the documents asked for are too large for one answer; ask for the rest in another request")

// jobElement gives a stored document as the bf:JobDefinition of an answer: in
// the namespace of bes-factory, with the sender's own content.
func jobElement(document []byte, l xmldoc.Limits) (*etree.Element, error) {
	doc, err := xmldoc.ReadBytes(document, l)
	if err != nil {
		return nil, fail.E("bes.GetActivityDocuments", fail.Internal, "", err)
	}
	e := soap.EPR{Source: doc.Root()}
	return e.Echo("bf", xmldoc.Name{Space: NSFactory, Local: "JobDefinition"}), nil
}

func (s *server) terminate(ctx context.Context, r request, out *etree.Element) error {
	list, err := r.activities(r.foreign, NSFactory)
	if err != nil {
		return err
	}
	results, err := s.terminated(ctx, list)
	if err != nil {
		return err
	}
	word := "bf:Terminated"
	if s.o.Dialect == Dialect2007 {
		word = "bf:Cancelled"
	}
	return s.answers(ctx, factoryPort, opTerminate, word, list, results, out)
}

// terminated asks for the end of activities; by the letter, if it has to be.
func (s *server) terminated(ctx context.Context, list []soap.EPR) ([]Result, error) {
	if !s.o.StrictTerminate {
		return s.svc.TerminateActivities(ctx, list)
	}
	before, err := s.svc.GetActivityStatuses(ctx, &StatusRequest{Activities: list})
	if err != nil {
		return nil, err
	}
	results, err := s.svc.TerminateActivities(ctx, list)
	if err != nil {
		return nil, err
	}
	after, err := s.svc.GetActivityStatuses(ctx, &StatusRequest{Activities: list})
	if err != nil {
		return nil, err
	}
	for _, n := range []int{len(before), len(results), len(after)} {
		if err := counted(opTerminate, n, len(list)); err != nil {
			return nil, err
		}
	}
	for i := range results {
		switch {
		case results[i].Err != nil:
		case before[i].Err == nil && before[i].Status.State.Final():
			results[i].Err = &StateError{before[i].Status, fail.Errorf("bes."+opTerminate, fail.Conflict, "", "the activity is %s already", before[i].Status.State)}
		case after[i].Err == nil && !after[i].Status.State.Final():
			results[i].Err = &eventually{StateError{after[i].Status, fail.Errorf("bes."+opTerminate, fail.Conflict, "", "the activity will be ended; poll for its state")}}
		}
	}
	return results, nil
}

// applied answers an operation of the control port type that returns nothing.
func (s *server) applied(apply func(Controller, context.Context, []soap.EPR) ([]Result, error)) handler {
	return func(ctx context.Context, r request, out *etree.Element) error {
		list, err := r.activities(r.foreign, NSPortolan, NSFactory)
		if err != nil {
			return err
		}
		results, err := apply(s.control, ctx, list)
		if err != nil {
			return err
		}
		return s.answers(ctx, controlPort, r.op, "p:Accepted", list, results, out)
	}
}

// answers writes the items of an operation that returns nothing. The boolean is
// required beside a fault too.
func (s *server) answers(ctx context.Context, p portType, op, word string, list []soap.EPR, results []Result, out *etree.Element) error {
	if err := counted(op, len(results), len(list)); err != nil {
		return err
	}
	s.explain(ctx, results)
	for i, res := range results {
		item := s.item(p, out, list[i])
		if res.Err == nil {
			text(item, word, "true")
			continue
		}
		text(item, word, "false")
		item.AddChild(itemFault(p.prefix, res.Err, op, s.o.Dialect))
	}
	return nil
}

// explain gives conflicts the state of their activities where the service did
// not say it: the schema's fault must tell it.
func (s *server) explain(ctx context.Context, results []Result) {
	var ask StatusRequest
	var at []int
	for i := range results {
		if fail.Is(results[i].Err, fail.Conflict) && !hasState(results[i].Err) {
			ask.Activities = append(ask.Activities, results[i].Activity)
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return
	}
	states, err := s.svc.GetActivityStatuses(ctx, &ask)
	if err != nil || len(states) != len(at) {
		return
	}
	for j, i := range at {
		if states[j].Err == nil {
			results[i].Err = &StateError{states[j].Status, fail.Errorf("bes", fail.Conflict, "", "%s", fail.Sentence(results[i].Err)).Because(results[i].Err)}
		}
	}
}

func (s *server) factory(ctx context.Context, r request, out *etree.Element) error {
	if err := r.empty(); err != nil {
		return err
	}
	fa, err := s.svc.GetFactoryAttributesDocument(ctx)
	if err != nil {
		return err
	}
	out.AddChild(encodeFactory(fa))
	return nil
}

func (s *server) switched(do func(Service, context.Context) error) handler {
	return func(ctx context.Context, r request, _ *etree.Element) error {
		if err := r.empty(); err != nil {
			return err
		}
		return do(s.svc, ctx)
	}
}

func (s *server) history(ctx context.Context, r request, out *etree.Element) error {
	epr, err := r.one(nil)
	if err != nil {
		return err
	}
	entries, err := s.control.GetActivityHistory(ctx, epr)
	if err != nil {
		return err
	}
	encodeHistory(out, entries)
	return nil
}

func (s *server) output(ctx context.Context, r request, out *etree.Element) error {
	q, err := r.output()
	if err != nil {
		return err
	}
	chunk, err := s.control.GetActivityOutput(ctx, q.activity, q.stream, q.offset, q.max)
	if err != nil {
		return err
	}
	encodeOutput(out, chunk)
	return nil
}

// item begins the answer for one activity with its reference as it was sent.
func (s *server) item(p portType, out *etree.Element, e soap.EPR) *etree.Element {
	item := out.CreateElement(p.prefix + ":Response")
	item.AddChild(p.identifier(e))
	return item
}

// counted guards the order of answers against a service that lost one.
func counted(op string, got, want int) error {
	if got == want {
		return nil
	}
	return fail.Errorf("bes."+op, fail.Internal, "", "the service answered for %d of %d activities", got, want)
}
