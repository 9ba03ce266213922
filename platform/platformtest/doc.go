// Package platformtest is for tests of whatever uses package platform: memory
// implementations of its capabilities with fault injection, conformance suites
// that those and the real implementations pass alike, and fixtures that set up
// the real stores of this machine (NSS, SoftHSM, a software TPM) for one test.
package platformtest
