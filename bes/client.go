package bes

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// URIs by which a service announces what is ours (BESExtension).
const (
	// ExtensionSubmissionID: CreateActivity takes a SubmissionId and is then
	// idempotent.
	ExtensionSubmissionID = NSPortolan + "/submission-id"
	// ExtensionControl: the activity control port type is offered.
	ExtensionControl = NSPortolan + "/activity-control"
)

const (
	// vector is how many activities the client names in one request.
	vector = 500
	// longestClientWait stays below the time that servers, proxies and the SOAP
	// client give an answer.
	longestClientWait = 60 * time.Second
)

// Client makes a basic execution service somewhere a Service again: any service,
// of either schema lineage and of other makes, with the habits that are seen. It
// is also a Controller; a service without the activity control port type answers
// that with fail.Unsupported. Errors have the kinds of the service's faults.
type Client struct {
	soap *soap.Client
}

var (
	_ Service    = (*Client)(nil)
	_ Controller = (*Client)(nil)
)

// NewClient makes a client of the service that c calls.
func NewClient(c *soap.Client) *Client { return &Client{c} }

// call sends a request and gives the element of the answer.
func (c *Client) call(ctx context.Context, p portType, op string, body *etree.Element, opts ...soap.CallOption) (*soap.Reply, error) {
	r, err := c.soap.Call(ctx, p.action(op), body, opts...)
	if f, ok := errors.AsType[*soap.Fault](err); ok {
		return nil, c.faulted(p, op, f)
	}
	if err != nil {
		return nil, err
	}
	if r.Parsed == nil || r.Payload == nil {
		return nil, unreadable(op, "it is empty")
	}
	return r, nil
}

// faulted is errorOf, with a service that lacks our port type told apart.
func (c *Client) faulted(p portType, op string, f *soap.Fault) error {
	err := errorOf(op, f)
	if p != controlPort || len(f.Detail) > 0 {
		return err
	}
	switch fail.KindOf(err) {
	case fail.Invalid, fail.Unsupported, fail.Internal:
		return fail.Errorf("bes."+op, fail.Unsupported, c.soap.URL, "the service at %s does not offer %s", c.soap.URL, op).Because(f)
	case fail.Unauthenticated, fail.Denied, fail.NotFound, fail.Conflict, fail.NotAccepting, fail.Unavailable, fail.Exhausted, fail.Uncertain:
	}
	return err
}

// CreateActivity sends a job. With a SubmissionID, an answer that was lost is
// settled by asking again, if the service announces that it may be.
func (c *Client) CreateActivity(ctx context.Context, req *CreateActivityRequest) (*CreateActivityResponse, error) {
	body, err := document(factoryPort.message(opCreate), req)
	if err != nil {
		return nil, err
	}
	if req.SubmissionID != "" {
		id := body.CreateElement("p:SubmissionId")
		id.CreateAttr("xmlns:p", NSPortolan)
		id.SetText(req.SubmissionID)
	}
	r, err := c.call(ctx, factoryPort, opCreate, body)
	if fail.Is(err, fail.Uncertain) && req.SubmissionID != "" {
		if fa, ferr := c.GetFactoryAttributesDocument(ctx); ferr == nil && slices.Contains(fa.Extensions, ExtensionSubmissionID) {
			r, err = c.call(ctx, factoryPort, opCreate, body, soap.Idempotent)
		}
	}
	if err != nil {
		return nil, err
	}
	e := child(r.Payload, "ActivityIdentifier")
	if e == nil {
		return nil, lost(opCreate, "it names no activity")
	}
	epr, err := soap.DecodeEPR(e)
	if err != nil {
		return nil, lost(opCreate, fail.Sentence(err))
	}
	return &CreateActivityResponse{Activity: epr}, nil
}

// document puts the document of a request into a message.
func document(body *etree.Element, req *CreateActivityRequest) (*etree.Element, error) {
	doc, err := xmldoc.ReadBytes(req.Document, xmldoc.Limits{})
	if err != nil {
		return nil, fail.Errorf("bes."+body.Tag, fail.Invalid, "", "the document can't be sent: %v", err).Because(err)
	}
	d := body.CreateElement("bf:ActivityDocument")
	if body.Space != factoryPort.prefix {
		d.CreateAttr("xmlns:bf", NSFactory)
	}
	d.AddChild(xmldoc.Detach(doc.Root()))
	return body, nil
}

// lost is unreadable where the request has had an effect.
func lost(op, why string) error {
	return fail.Errorf("bes."+op, fail.Uncertain, "", "the answer of the service to %s can't be used: %s; it may have been carried out", op, why)
}

// items asks for the activities, many at once, and gives one answer item for
// each. A service may refuse more than one activity in a request (the HPC Basic
// Profile lets it): then each is asked for by itself. The error of an item is
// that of its own request; the error of the whole is about none of them.
func (c *Client) items(ctx context.Context, p portType, op string, list []soap.EPR, extra *etree.Element, got func(i int, r *soap.Reply, item *etree.Element, err error)) error {
	single := false
	for from := 0; from < len(list); {
		n := min(vector, len(list)-from)
		if single {
			n = 1
		}
		r, items, err := c.ask(ctx, p, op, list[from:from+n], extra)
		switch {
		case err == nil:
			for i, item := range items {
				got(from+i, r, item, nil)
			}
		case n > 1 && refusedVector(err):
			single = true
			continue
		case n == 1 && aboutItem(err):
			got(from, nil, nil, err)
		default:
			return err
		}
		from += n
	}
	return nil
}

func (c *Client) ask(ctx context.Context, p portType, op string, list []soap.EPR, extra *etree.Element) (*soap.Reply, []*etree.Element, error) {
	body := p.message(op)
	for i := range list {
		body.AddChild(p.identifier(list[i]))
	}
	if extra != nil {
		body.AddChild(extra.Copy())
	}
	r, err := c.call(ctx, p, op, body, soap.Idempotent)
	if err != nil {
		return nil, nil, err
	}
	var items []*etree.Element
	for _, e := range r.Payload.ChildElements() {
		if e.Tag == "Response" {
			items = append(items, e)
		}
	}
	if len(items) != len(list) {
		return nil, nil, &countError{unreadable(op, "it has "+strconv.Itoa(len(items))+" items for "+strconv.Itoa(len(list))+" activities")}
	}
	return r, items, nil
}

// countError is an answer with too few items, or too many.
type countError struct{ error }

func (e *countError) Unwrap() error { return e.error }

// refusedVector reports whether a request of fewer activities may fare better.
func refusedVector(err error) bool {
	if _, ok := errors.AsType[*countError](err); ok {
		return true
	}
	_, fault := errors.AsType[*soap.Fault](err)
	return fault && aboutItem(err)
}

// aboutItem reports whether the fault of a request can be about its one activity.
func aboutItem(err error) bool {
	switch fail.KindOf(err) {
	case fail.Invalid, fail.Unsupported, fail.NotFound, fail.Conflict, fail.Internal, fail.Denied:
		return true
	case fail.Unauthenticated, fail.NotAccepting, fail.Unavailable, fail.Exhausted, fail.Uncertain:
	}
	return false
}

// GetActivityStatuses asks for states. A wait is cut at a minute.
func (c *Client) GetActivityStatuses(ctx context.Context, req *StatusRequest) ([]StatusResult, error) {
	var wait *etree.Element
	if req.Wait > 0 && len(req.Activities) <= vector {
		wait = controlPort.message("WaitForChange")
		wait.CreateAttr("timeout", strconv.FormatFloat(min(req.Wait, c.longestWait()).Seconds(), 'f', 3, 64))
		wait.CreateAttr("after", strconv.FormatInt(req.After, 10))
	}
	out := make([]StatusResult, len(req.Activities))
	err := c.items(ctx, factoryPort, opStatuses, req.Activities, wait, func(i int, _ *soap.Reply, item *etree.Element, err error) {
		out[i] = StatusResult{Activity: req.Activities[i], Err: err}
		if err != nil {
			return
		}
		status, fault := child(item, "ActivityStatus"), child(item, "Fault")
		switch {
		case fault != nil:
			out[i].Err = errorOf(opStatuses, decodeItemFault(fault))
		case status != nil:
			out[i].Status = decodeStatus(status)
		default:
			out[i].Err = unreadable(opStatuses, "an item has neither a status nor a fault")
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (c *Client) longestWait() time.Duration {
	if t := c.soap.Timeout; t > 0 {
		return min(longestClientWait, t/2)
	}
	return longestClientWait
}

// TerminateActivities asks for the end of activities.
func (c *Client) TerminateActivities(ctx context.Context, list []soap.EPR) ([]Result, error) {
	return c.apply(ctx, factoryPort, opTerminate, list, "Terminated", "Cancelled")
}

// SuspendActivities keeps activities from running.
func (c *Client) SuspendActivities(ctx context.Context, list []soap.EPR) ([]Result, error) {
	return c.apply(ctx, controlPort, opSuspend, list, "Accepted")
}

// ResumeActivities lets activities go on.
func (c *Client) ResumeActivities(ctx context.Context, list []soap.EPR) ([]Result, error) {
	return c.apply(ctx, controlPort, opResume, list, "Accepted")
}

// apply asks for an operation that answers with a boolean of one of the names.
func (c *Client) apply(ctx context.Context, p portType, op string, list []soap.EPR, words ...string) ([]Result, error) {
	out := make([]Result, len(list))
	err := c.items(ctx, p, op, list, nil, func(i int, _ *soap.Reply, item *etree.Element, err error) {
		out[i] = Result{Activity: list[i], Err: err}
		if err != nil {
			return
		}
		if f := child(item, "Fault"); f != nil {
			fault := decodeItemFault(f)
			// Remembered and applied later: accepted, in other words.
			later := slices.ContainsFunc(fault.Detail, func(d *etree.Element) bool { return d.Tag == faultEventually })
			if !later {
				out[i].Err = errorOf(op, fault)
			}
			return
		}
		word := child(item, words...)
		if word == nil {
			out[i].Err = unreadable(op, "an item does not say whether it was done")
			return
		}
		if done, _ := parseBool(xmldoc.Text(word)); !done {
			out[i].Err = fail.Errorf("bes."+op, fail.Conflict, "", "the service did not do it, and gives no reason")
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// GetActivityDocuments asks for the documents of activities.
func (c *Client) GetActivityDocuments(ctx context.Context, list []soap.EPR) ([]DocumentResult, error) {
	out, err := c.documents(ctx, list)
	if err != nil || len(list) < 2 {
		return out, err
	}
	for i := range out {
		if fail.Is(out[i].Err, fail.Exhausted) { // there was no room for it in the answer
			one, err := c.documents(ctx, list[i:i+1])
			if err != nil {
				return nil, err
			}
			out[i] = one[0]
		}
	}
	return out, nil
}

func (c *Client) documents(ctx context.Context, list []soap.EPR) ([]DocumentResult, error) {
	out := make([]DocumentResult, len(list))
	err := c.items(ctx, factoryPort, opDocuments, list, nil, func(i int, r *soap.Reply, item *etree.Element, err error) {
		out[i] = DocumentResult{Activity: list[i], Err: err}
		if err != nil {
			return
		}
		job, fault := child(item, "JobDefinition"), child(item, "Fault")
		switch {
		case fault != nil:
			out[i].Err = errorOf(opDocuments, decodeItemFault(fault))
		case job != nil:
			out[i].Document = decodeJob(r.Document, job)
		default:
			out[i].Err = unreadable(opDocuments, "an item has neither a document nor a fault")
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// GetFactoryAttributesDocument asks what the service is and has.
func (c *Client) GetFactoryAttributesDocument(ctx context.Context) (*FactoryAttributes, error) {
	r, err := c.call(ctx, factoryPort, opFactory, factoryPort.message(opFactory), soap.Idempotent)
	if err != nil {
		return nil, err
	}
	e := child(r.Payload, "FactoryResourceAttributesDocument")
	if e == nil {
		return nil, unreadable(opFactory, "there is no FactoryResourceAttributesDocument in it")
	}
	return decodeFactory(e), nil
}

// StopAcceptingNewActivities stops CreateActivity.
func (c *Client) StopAcceptingNewActivities(ctx context.Context) error {
	_, err := c.call(ctx, managementPort, opStop, managementPort.message(opStop), soap.Idempotent)
	return err
}

// StartAcceptingNewActivities undoes StopAcceptingNewActivities.
func (c *Client) StartAcceptingNewActivities(ctx context.Context) error {
	_, err := c.call(ctx, managementPort, opStart, managementPort.message(opStart), soap.Idempotent)
	return err
}

// GetActivityHistory asks for every step of an activity.
func (c *Client) GetActivityHistory(ctx context.Context, activity soap.EPR) ([]HistoryEntry, error) {
	body := controlPort.message(opHistory)
	body.AddChild(controlPort.identifier(activity))
	r, err := c.call(ctx, controlPort, opHistory, body, soap.Idempotent)
	if err != nil {
		return nil, err
	}
	return decodeHistory(r.Payload), nil
}

// GetActivityOutput asks for a piece of a stream; a request for more than 1 MiB
// gets less.
func (c *Client) GetActivityOutput(ctx context.Context, activity soap.EPR, stream Stream, offset int64, most int) (*OutputChunk, error) {
	body := controlPort.message(opOutput)
	body.AddChild(controlPort.identifier(activity))
	text(body, "p:Stream", string(stream))
	text(body, "p:Offset", strconv.FormatInt(offset, 10))
	if most > 0 {
		text(body, "p:MaxBytes", strconv.Itoa(most))
	}
	r, err := c.call(ctx, controlPort, opOutput, body, soap.Idempotent)
	if err != nil {
		return nil, err
	}
	return decodeOutput(r.Payload)
}
