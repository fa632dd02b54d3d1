// Package boinctest is a BOINC project for tests: the server's web interface for
// remote job submission, what the daemons behind it do, and volunteers' hosts that
// really run jobs.
//
// The server answers as a real one of 2026 does, with its defects: replies that are no
// XML, HTTP 500 for what the database refuses, PHP's messages inside replies where
// display_errors is on. Its answers come from a model of the tables (batch, workunit,
// result, job_file); a test replays recorded exchanges of a real server against it.
// What a real project's staff and volunteers do is done by methods: Send, Report, Tick.
//
// A Project lives in a directory and survives the end of its process. Volunteers
// are apart from it, as they are in life: they go on while the server is away, and
// report when it is back.
//
// Client is the double of the volunteer's own client program, as far as its control
// port (GUI RPC) goes.
package boinctest
