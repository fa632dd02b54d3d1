// Package peers is the session protocol of docs/peer-protocol.md over SOAP and HTTP: the
// sessions of one gateway with those of other domains, and nothing else. What the items
// that travel in them mean is for the Handler.
//
//   - trust.go: Trust, who the other side is and how it sees who this side is
//   - peer.go: Peer, what an administrator says of another domain
//   - handler.go: Handler, what a gateway does with its sessions
//   - table.go: Table, all sessions of a gateway; entry.go one peer's; link.go one session
//     with its clock, its timer and its requests; open.go how sessions come to be
//   - status.go: Status, what there is to see of a session
//   - server.go: Server, the endpoint `/peer`; client.go: Client, which calls one
//   - encode.go: compression, and counting of bytes
//
// The rules are peers/session's: a Table gives its states the time, takes them where they
// want to go, and has no rule of its own but those of opening. One step of a session is
// taken at a time; an idle session has a timer and no goroutine. Everything that a Table
// starts ends with Run.
package peers
