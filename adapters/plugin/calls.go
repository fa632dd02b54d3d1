package plugin

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	goproto "google.golang.org/protobuf/proto"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// Check asks the plug-in.
func (h *host) Check(d *jsdl.JobDefinition) error {
	p, err := definition(d)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkWait)
	defer cancel()
	r, err := call(ctx, h, "Check", fail.Unavailable, &proto.CheckRequest{Definition: p}, proto.AdapterClient.Check)
	if err != nil {
		return err
	}
	return failure("Check", r.Problem)
}

// batches cuts items into what one message takes, at most so many each.
func batches(n, most int, size func(int) int) [][2]int {
	var cuts [][2]int
	from, bytes := 0, 0
	for i := range n {
		s := size(i)
		if i > from && (i-from == most || bytes+s > batchBytes) {
			cuts = append(cuts, [2]int{from, i})
			from, bytes = i, 0
		}
		bytes += s
	}
	if n > from {
		cuts = append(cuts, [2]int{from, n})
	}
	return cuts
}

// most gives how many items the plug-in takes in one call, of so many that the call
// may have.
func (h *host) most(items int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.props.MaxBatch; n > 0 {
		return min(n, items)
	}
	return items
}

// Submit places jobs.
func (h *host) Submit(ctx context.Context, jobs []adapters.Job) []adapters.Placed {
	placed := make([]adapters.Placed, len(jobs))
	var wire []*proto.Job
	var at []int
	for i, j := range jobs {
		if err := j.Tag.Validate(); err != nil {
			placed[i].Err = err
			continue
		}
		if err := j.WithoutReservations("plugin.Submit"); err != nil {
			placed[i].Err = err
			continue
		}
		if !j.NotAfter.IsZero() && !h.claims.Lease {
			placed[i].Err = fail.Errorf("plugin.Submit", fail.Unsupported, string(j.Tag), "the site can't end a job by itself when its lease is over")
			continue
		}
		d, err := definition(j.Definition)
		if err != nil {
			placed[i].Err = err
			continue
		}
		wire = append(wire, &proto.Job{Tag: string(j.Tag), Definition: d, Owner: clip(j.Owner, maxWord), Account: j.Account, NotAfter: stamp(j.NotAfter)})
		at = append(at, i)
	}
	for _, cut := range batches(len(wire), h.most(submitItems), func(i int) int { return goproto.Size(wire[i]) }) {
		answers := h.submit(ctx, wire[cut[0]:cut[1]])
		for i, a := range answers {
			placed[at[cut[0]+i]] = a
		}
	}
	return placed
}

// submit makes one call, which goes on when the caller gives up: so it is known when
// it is over, and Find can wait for that.
func (h *host) submit(ctx context.Context, jobs []*proto.Job) []adapters.Placed {
	f := &flight{landed: make(chan struct{})}
	h.mu.Lock()
	for _, j := range jobs {
		tag := adapters.Tag(j.Tag)
		h.flights[tag] = append(h.flights[tag], f)
		if _, known := h.live[tag]; !known && h.claims.Push {
			h.live[tag] = nil // its end may be pushed before we hear its handle
		}
	}
	h.mu.Unlock()
	answers := make(chan []adapters.Placed, 1)
	h.running.Go(func() {
		defer h.land(f, jobs)
		r, err := call(context.WithoutCancel(ctx), h, "Submit", fail.Uncertain, &proto.SubmitRequest{Jobs: jobs}, proto.AdapterClient.Submit)
		answers <- h.readPlaced(jobs, r, err)
	})
	select {
	case a := <-answers:
		return a
	case <-ctx.Done():
		return h.readPlaced(jobs, nil, fail.Errorf("plugin.Submit", fail.Uncertain, "", "the plug-in had not answered when the call was given up").Because(ctx.Err()))
	}
}

func (h *host) land(f *flight, jobs []*proto.Job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, j := range jobs {
		tag := adapters.Tag(j.Tag)
		left := slices.DeleteFunc(h.flights[tag], func(o *flight) bool { return o == f })
		if h.flights[tag] = left; len(left) == 0 {
			delete(h.flights, tag)
			if handle, known := h.live[tag]; known && handle == nil {
				delete(h.live, tag)
			}
		}
	}
	close(f.landed)
}

func (h *host) readPlaced(jobs []*proto.Job, r *proto.SubmitReply, err error) []adapters.Placed {
	out := make([]adapters.Placed, len(jobs))
	if err == nil && len(r.Placed) != len(jobs) {
		err = fail.Errorf("plugin.Submit", fail.Uncertain, "", "the plug-in answers %d of %d jobs", len(r.Placed), len(jobs))
	}
	for i, j := range jobs {
		switch {
		case err != nil:
			out[i].Err = err
		case r.Placed[i].GetProblem() != nil:
			out[i].Err = failure("Submit", r.Placed[i].Problem)
		default:
			handle := r.Placed[i].GetHandle()
			if out[i].Err = goodHandle(handle); out[i].Err == nil {
				out[i].Handle = handle
				h.placed(adapters.Tag(j.Tag), handle)
			}
		}
	}
	return out
}

// placed remembers the handle of a job, if its end was not seen already.
func (h *host) placed(tag adapters.Tag, handle adapters.Handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.live[tag]; known {
		h.live[tag] = handle
	}
}

// follow remembers a job that may not have ended, for what Watch may miss.
func (h *host) follow(tag adapters.Tag, handle adapters.Handle) {
	if !h.claims.Push {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.live[tag] = handle
}

// seen takes note of evidence.
func (h *host) seen(e *adapters.Evidence) {
	if !h.claims.Push || e.Tag == "" || e.Phase == adapters.Unknown {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.Phase.Final() {
		delete(h.live, e.Tag)
	} else {
		h.live[e.Tag] = e.Handle
	}
}

// Find asks for tags, once nothing is under way that could still place them.
func (h *host) Find(ctx context.Context, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	found := map[adapters.Tag]adapters.Handle{}
	var ask []string
	for _, t := range tags {
		if t.Validate() == nil { // no other was ever placed
			ask = append(ask, string(t))
		}
	}
	for {
		f := h.flying(tags)
		if f == nil {
			break
		}
		select {
		case <-f.landed:
		case <-ctx.Done():
			return nil, fail.Errorf("plugin.Find", fail.Unavailable, h.site, "a submission is still under way in the plug-in").Because(ctx.Err())
		}
	}
	for _, cut := range batches(len(ask), h.most(batchItems), func(i int) int { return len(ask[i]) + 8 }) {
		some := ask[cut[0]:cut[1]]
		r, err := call(ctx, h, "Find", fail.Unavailable, &proto.FindRequest{Tags: some}, proto.AdapterClient.Find)
		if err != nil {
			return nil, err
		}
		for _, f := range r.Found {
			tag := adapters.Tag(f.GetTag())
			if err := goodHandle(f.GetHandle()); err != nil {
				return nil, err
			}
			before, twice := found[tag]
			if !slices.Contains(some, string(tag)) || twice && string(before) != string(f.GetHandle()) {
				return nil, fail.Errorf("plugin.Find", fail.Internal, h.site, "the plug-in answers about a tag that it was not asked for, or twice otherwise")
			}
			found[tag] = f.GetHandle()
			h.follow(tag, f.GetHandle())
		}
	}
	return found, nil
}

func (h *host) flying(tags []adapters.Tag) *flight {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range tags {
		if f := h.flights[t]; len(f) > 0 {
			return f[0]
		}
	}
	return nil
}

func tooLong(h adapters.Handle) error {
	if len(h) <= maxHandle {
		return nil
	}
	return fail.Errorf("plugin", fail.Invalid, "", "the handle has %d bytes; it is none of a plug-in", len(h))
}

// split cuts handles and leaves those out that are none.
func (h *host) split(all []adapters.Handle, bad func(i int, err error), do func(some []adapters.Handle, at []int)) {
	var good []adapters.Handle
	var at []int
	for i, x := range all {
		if err := tooLong(x); err != nil {
			bad(i, err)
			continue
		}
		good, at = append(good, x), append(at, i)
	}
	for _, cut := range batches(len(good), h.most(batchItems), func(i int) int { return len(good[i]) + 8 }) {
		do(good[cut[0]:cut[1]], at[cut[0]:cut[1]])
	}
}

// Status gives evidence.
func (h *host) Status(ctx context.Context, all []adapters.Handle) ([]adapters.Evidence, error) {
	out := make([]adapters.Evidence, len(all))
	var failed error
	h.split(all, func(i int, err error) { out[i] = adapters.Evidence{Handle: all[i], Err: err} }, func(some []adapters.Handle, at []int) {
		if failed != nil {
			return
		}
		r, err := call(ctx, h, "Status", fail.Unavailable, &proto.HandlesRequest{Handles: handles(some)}, proto.AdapterClient.Status)
		if err == nil && len(r.Evidence) != len(some) {
			err = fail.Errorf("plugin.Status", fail.Internal, h.site, "the plug-in answers %d of %d handles", len(r.Evidence), len(some))
		}
		if err != nil {
			failed = err
			return
		}
		for i, e := range r.Evidence {
			handle := some[i]
			if handle == nil {
				handle = adapters.Handle{}
			}
			out[at[i]] = readEvidence(e, handle)
			h.seen(&out[at[i]])
		}
	})
	if failed != nil {
		return nil, failed
	}
	return out, nil
}

// act does one thing to jobs.
func (h *host) act(ctx context.Context, op string, all []adapters.Handle, do func(proto.AdapterClient, context.Context, *proto.HandlesRequest, ...grpc.CallOption) (*proto.OutcomesReply, error)) []error {
	out := make([]error, len(all))
	h.split(all, func(i int, err error) { out[i] = err }, func(some []adapters.Handle, at []int) {
		r, err := call(ctx, h, op, fail.Unavailable, &proto.HandlesRequest{Handles: handles(some)}, do)
		if err == nil && len(r.Outcomes) != len(some) {
			err = fail.Errorf("plugin."+op, fail.Internal, h.site, "the plug-in answers %d of %d handles", len(r.Outcomes), len(some))
		}
		for i := range some {
			if out[at[i]] = err; err == nil {
				out[at[i]] = failure(op, r.Outcomes[i].GetProblem())
			}
		}
	})
	return out
}

// Cancel ends jobs.
func (h *host) Cancel(ctx context.Context, all []adapters.Handle) []error {
	return h.act(ctx, "Cancel", all, proto.AdapterClient.Cancel)
}

type (
	suspender struct{ h *host }
	holder    struct{ h *host }
	watcher   struct{ h *host }
)

// Suspend stops jobs for a while.
func (s suspender) Suspend(ctx context.Context, all []adapters.Handle) []error {
	return s.h.act(ctx, "Suspend", all, proto.AdapterClient.Suspend)
}

// Resume lets them go on.
func (s suspender) Resume(ctx context.Context, all []adapters.Handle) []error {
	return s.h.act(ctx, "Resume", all, proto.AdapterClient.Resume)
}

// Hold keeps jobs from starting.
func (o holder) Hold(ctx context.Context, all []adapters.Handle) []error {
	return o.h.act(ctx, "Hold", all, proto.AdapterClient.Hold)
}

// Release lets them start.
func (o holder) Release(ctx context.Context, all []adapters.Handle) []error {
	return o.h.act(ctx, "Release", all, proto.AdapterClient.Release)
}

// Extend moves the ends of leases on.
func (h *host) Extend(ctx context.Context, extensions []adapters.Extension) []error {
	all := make([]adapters.Handle, len(extensions))
	for i, x := range extensions {
		all[i] = x.Handle
	}
	out := make([]error, len(extensions))
	if !h.claims.Lease {
		for i := range out {
			out[i] = fail.Errorf("plugin.Extend", fail.Unsupported, h.site, "the plug-in keeps no leases")
		}
		return out
	}
	h.split(all, func(i int, err error) { out[i] = err }, func(some []adapters.Handle, at []int) {
		req := &proto.ExtendRequest{}
		for i, handle := range some {
			req.Extensions = append(req.Extensions, &proto.Extension{Handle: handle, NotAfter: stamp(extensions[at[i]].NotAfter)})
		}
		r, err := call(ctx, h, "Extend", fail.Unavailable, req, proto.AdapterClient.Extend)
		if err == nil && len(r.Outcomes) != len(some) {
			err = fail.Errorf("plugin.Extend", fail.Internal, h.site, "the plug-in answers %d of %d handles", len(r.Outcomes), len(some))
		}
		for i := range some {
			if out[at[i]] = err; err == nil {
				out[at[i]] = failure("Extend", r.Outcomes[i].GetProblem())
			}
		}
	})
	return out
}

// Forget drops a job that ended.
func (h *host) Forget(ctx context.Context, handle adapters.Handle) error {
	if err := tooLong(handle); err != nil {
		return err
	}
	_, err := call(ctx, h, "Forget", fail.Unavailable, &proto.ForgetRequest{Handle: handle}, proto.AdapterClient.Forget)
	return err
}

// Resources tells what the site has.
func (h *host) Resources(ctx context.Context) (adapters.Resources, error) {
	r, err := call(ctx, h, "Resources", fail.Unavailable, &proto.ResourcesRequest{}, proto.AdapterClient.Resources)
	if err != nil {
		return adapters.Resources{}, err
	}
	return readResources(r)
}
