// Package modelstore keeps the resource model in the store, so that every replica sees
// the same: what one of them learns of a site the others hear by watch.
//
// # Records
//
//	model/<domain>/<site>/static        the parts of a site, each replaced when its value
//	model/<domain>/<site>/dynamic       changes, and only then
//	model/<domain>/<site>/feeder        which replica tells of the site, bound to its lease
//	modelhistory/d/<time>/<domain>/<site>   what one change replaced, in the same transaction
//	modelhistory/b/<domain>/<site>/<part>   the model as it was before the oldest of those
//	modelhistory/at                     up to when changes were folded into that
//
// The domain of a gateway without a name is written "%". Gateways with names share the
// model, each feeding the sites of its own domain; for each of them its own domain is "",
// and that of a gateway without a name is Nameless. Values are JSON as resourcemodel
// encodes it, compressed.
//
// # What is written
//
// Feed is told what a site's source says as often as it says it, and writes when it says
// something new: a static part at once; a dynamic part at once when something comes or
// goes (the site, a share, the last free CPU or the first), and else at most once an
// interval and only if a number has left the dead-band around what was written. That
// somebody still confirms the values is told by the feeder's claim, which is there as
// long as its lease and for as long as it is told something: it costs no revision.
//
// # Snapshots
//
// The model changes only by what the watch delivers, in the order of revisions, so that
// snapshots of the same revision are the same on every replica, but for what its own
// domain is called.
package modelstore
