package jsdl

import (
	"github.com/beevik/etree"
)

// Lenient reading takes, each with a warning, what real documents get wrong and
// what can have one meaning only:
//
//   - a missing CreationFlag: overwrite;
//   - known children in another order;
//   - FileSystemName for FilesystemName, in DataStaging;
//   - MountSource, which the specification's prose has and its schema has not;
//   - camel-case attributes of SPMD's numbers, these numbers empty instead of nil,
//     and a number beside the attribute that says to take another;
//   - negative bounds of a RangeValue, which ARC writes for "not given";
//   - TotalCPUCount with bare text, also ARC's;
//   - POSIXApplication and HPCProfileApplication side by side, when they say the same.
//
// Nothing else is taken. The first five and the bare text are marked in the tables.

// readMountSource reads the remote place of a file system.
func readMountSource(d *decoder, f *FileSystem, e *etree.Element) {
	s, ok := d.leaf(e)
	if !ok {
		return
	}
	s = trim(s)
	f.MountSource = &s
	if s != "" {
		d.rule(e, Unsupported, "nothing is mounted by this gateway", "remove MountSource, or name a place that the site has by MountPoint")
	}
}

// readBareCount reads the text "4" of TotalCPUCount as Exact.
func readBareCount(d *decoder, r *RangeValue, e *etree.Element, s string) (taken bool) {
	v, ok := parseDouble(s)
	if !ok || !d.opts.Lenient || v != v || e.Tag != "TotalCPUCount" {
		return false
	}
	d.rule(e, Warning, "holds a bare number", "write it as Exact")
	r.Exact = append(r.Exact, Exact{Value: v})
	return true
}

// dropNegative takes negative bounds away, and says whether there were any.
func dropNegative(r *RangeValue) bool {
	dropped := false
	if r.Upper != nil && r.Upper.Value < 0 {
		r.Upper, dropped = nil, true
	}
	if r.Lower != nil && r.Lower.Value < 0 {
		r.Lower, dropped = nil, true
	}
	kept := r.Ranges[:0]
	for _, v := range r.Ranges {
		if v.Upper.Value < 0 && v.Lower.Value < 0 {
			dropped = true
			continue
		}
		kept = append(kept, v)
	}
	r.Ranges = kept
	return dropped
}
