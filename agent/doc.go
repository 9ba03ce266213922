// Package agent holds the map of the code and the test that keeps it true.
//
//	agent/enroll   the heart: one credential from wish to proof
//	agent/state    the service's record, in bbolt
//	agent/control  the way to central management
//	agent/local    the local API, and how a helper lends its session
//	agent/helper   the user's session: keys, certificates, proof, prompts
//	agent/smime    CMS messages made and opened by a key that stays in its store
//	agent/oldmail  which keys the mail on the machine needs
//	agent/text     everything that an employee reads, in two languages
//	agent/status   conditions and the report
//	agent/config   the table of settings
//	agent/service  builds and runs the whole
//	agent/cmd      the two commands
//	agent/e2e      the demo and the tests of the whole
//	platform       the only place where operating systems differ
//	proto          the contracts on the wire
//	server-stub    the reference server, over a file or PostgreSQL (server-stub/store)
//
// Arrows point to agent/enroll. arch_test.go holds the whole rule.
package agent
