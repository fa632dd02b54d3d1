// Package limits bounds how many jobs, or CPUs of jobs, a user, a VO or a site has at once,
// over all replicas of the gateway.
//
// # Records
//
//	limits/config/<scope>/<name>   how many are allowed; the name %2A ("*") is for those
//	                               that have no limit of their own
//	limits/used/<scope>/<name>     how many each replica counts
//	limits/changes                 who changed which limit, the newest first
//
// What has no limit is counted in memory only, so that a gateway without limits writes
// nothing. A replica's count is absolute, and written before its jobs count as reserved,
// in one transaction for all jobs of a round, on the condition that neither the limit nor
// anybody's count has changed: the sum never exceeds the limit. Releases go with the next
// write. A replica that crashed counts its jobs anew; one that does not come back is
// counted by whoever takes over its jobs.
package limits
