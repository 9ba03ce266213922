// Command server-stub is the reference server for central management.
package main

func main() {}
