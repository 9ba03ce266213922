//go:build linux

package e2e_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

var seed = flag.Uint64("seed", 0, "seed of the kills; 0 draws one")

// victims, each as often as it stands here. "machine" is service and helper at
// one moment, "all" the server too.
var victims = []string{"service", "service", "service", "helper", "helper", "server", "machine", "all"}

// kill is one shot: at the moment when a state is first shown, or after a delay.
type kill struct {
	victim string
	state  enroll.State
	delay  time.Duration
}

func (k kill) String() string {
	if k.state != "" {
		return fmt.Sprintf("%s when %s is shown", k.victim, k.state)
	}
	return fmt.Sprintf("%s after %v", k.victim, k.delay)
}

// enrollmentTime is about what an enrollment takes from the agreement to the
// proof, the command line's own start included.
func enrollmentTime(slow bool) time.Duration {
	if slow {
		return 350 * time.Millisecond
	}
	return 80 * time.Millisecond
}

// shots is a seeded plan: half of the kills at transitions, each as often as
// the others, half at random moments.
//
// The quick form spares the server: a call that fails is not repeated for 10 s.
func shots(n int, slow bool, random *rand.Rand) []kill {
	victims := victims
	if !full() {
		victims = slices.DeleteFunc(slices.Clone(victims), func(v string) bool { return hits(v, "server") })
	}
	transitions := []enroll.State{
		enroll.Consented, enroll.Requested, enroll.Submitted, enroll.Issued, enroll.Installed, enroll.Prepared, enroll.Active,
	}
	all := make([]kill, n)
	for i := range all {
		all[i].victim = victims[random.IntN(len(victims))]
		if i%2 == 0 {
			all[i].state = transitions[i/2%len(transitions)]
		} else {
			all[i].delay = time.Duration(random.Int64N(int64(enrollmentTime(slow))))
		}
	}
	return all
}

// tally is what the kills hit.
type tally struct {
	mu    sync.Mutex
	kills int
	// hit counts processes and the state in which the kill found the record.
	hit map[string]int
	// total of what the oracle saw at the end of each lane.
	total   verdict
	longest time.Duration
	// farthest is the longest wait for a next attempt that was shown once every process was up again.
	farthest time.Duration
}

func (y *tally) note(victim, found string, recovered time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.kills++
	y.hit[victim+" at "+found]++
	y.longest = max(y.longest, recovered)
}

func (y *tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d kills; then %d certificates, %d keys, %d of which decrypt; longest way back to health %v, longest wait shown %v\n",
		y.kills, y.total.certificates, y.total.keys, y.total.decrypted, y.longest.Round(time.Millisecond), y.farthest.Round(time.Millisecond))
	for _, k := range slices.Sorted(maps.Keys(y.hit)) {
		fmt.Fprintf(&b, "  %4d  %s\n", y.hit[k], k)
	}
	return b.String()
}

// TestKills is case F1: SIGKILL of service, helper and server, at every
// transition that can be seen from outside and at random moments, each followed
// by a restart. The work is first enrollments and renewals.
//
// The yardstick, certmonger 0.79.17, killed 20 times during its request into
// NSS, left 8 orphan keys and lost one request that was never recorded.
func TestKills(t *testing.T) {
	t.Parallel()
	lanes, kills := []string{"file", "file", "file"}, 4
	if full() {
		lanes, kills = []string{"file", "nss:default", "file", "nss:default", "file", "nss:default", "file", "nss:default"}, 40
	}
	number := *seed
	if number == 0 {
		number = rand.Uint64()
	}
	t.Logf("replay with -seed %d", number)
	y := &tally{hit: map[string]int{}}
	t.Run("lanes", func(t *testing.T) {
		for i, store := range lanes {
			t.Run(fmt.Sprintf("%d-%s", i, strings.ReplaceAll(store, ":", "-")), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(number, uint64(i)))
				slow := i < 5
				l := newLane(t, store, slow, kills, random)
				for n, k := range shots(kills, slow, random) {
					l.shoot(k, y)
					if n%10 == 9 {
						l.keepLedger()
					}
				}
				l.finish(y)
			})
		}
	})
	t.Logf("seed %d: %s", number, y)
	if y.kills < len(lanes)*kills && !t.Failed() {
		t.Errorf("only %d kills", y.kills)
	}
}

// shoot sends an enrollment on its way, kills, restarts, and waits for health.
func (l *lane) shoot(k kill, y *tally) {
	l.t.Helper()
	before, _, _ := l.follower.now()
	mailbox := l.pick(before)
	old, _ := newest(before, mailbox)
	move := "renew"
	if old.State == enroll.Wanted {
		move = "approve"
	}
	shot := l.aim(k, mailbox, old)
	cmd := l.Command(l.t.Context(), "smime-agent", move, mailbox, "--address", l.Address())
	l.must(cmd.Start())
	if k.state == "" {
		time.Sleep(k.delay)
		shot.fire()
	}
	select {
	case <-shot.fired:
	case <-time.After(patience):
		r, _, ended := l.follower.now()
		c, _ := newest(r, mailbox)
		l.t.Fatalf("%s: %s %s did not come so far; shown (watching ended: %v) at %s: %+v; the service:\n%s",
			k, move, mailbox, ended, r.At, c, stacks(l.Service()))
	}
	down := time.Now()
	l.follower.upAgain(false)
	for _, p := range shot.at {
		p.Kill() // waits
	}
	acknowledged := cmd.Wait() == nil
	shown := l.found(k.victim, mailbox)
	l.restart(k.victim)
	l.follower.upAgain(true)
	l.recover(mailbox, move, old, acknowledged)
	y.note(k.victim, shown, time.Since(down))
	if b := l.broken(); b != "" {
		l.t.Fatalf("after kill of %s (%s %s): %s", k, move, mailbox, b)
	}
}

// stacks ends a program and gives what all of it was doing.
func stacks(p *e2e.Process) string {
	_ = syscall.Kill(p.PID(), syscall.SIGQUIT)
	time.Sleep(time.Second)
	return p.Output()
}

// pick takes a mailbox whose limit for the day is not reached.
func (l *lane) pick(r status.Report) string {
	l.t.Helper()
	for _, i := range l.random.Perm(len(l.mailboxes)) {
		m := l.mailboxes[i]
		if c, ok := newest(r, m); ok && l.used[m] < usesOfMailbox && (c.State == enroll.Active || c.State == enroll.Wanted) {
			l.used[m]++
			return m
		}
	}
	l.t.Fatal("no mailbox is left")
	return ""
}

// shot is a kill that waits for its moment.
type shot struct {
	at    []*e2e.Process
	fired chan struct{}
}

func (s *shot) fire() {
	for _, p := range s.at {
		_ = syscall.Kill(p.PID(), syscall.SIGKILL)
	}
	close(s.fired)
}

// aim makes a shot; one at a transition goes off by itself.
func (l *lane) aim(k kill, mailbox string, old status.Credential) *shot {
	s := &shot{fired: make(chan struct{})}
	for _, v := range []struct {
		hit bool
		p   *e2e.Process
	}{{hits(k.victim, "server"), l.Server()}, {hits(k.victim, "helper"), l.helper}, {hits(k.victim, "service"), l.Service()}} {
		if v.hit {
			s.at = append(s.at, v.p)
		}
	}
	if k.state != "" {
		l.follower.arm(func(r status.Report) bool {
			c, _ := newest(r, mailbox)
			moved := c.ID != old.ID || c.State != old.State
			if !moved || rank(c.State) < rank(k.state) {
				return false
			}
			s.fire()
			return true
		})
	}
	return s
}

// hits says that a kill of that victim ends the program.
func hits(victim, program string) bool {
	return victim == program || victim == "all" || victim == "machine" && program != "server"
}

// found says in which state the kill found the enrollment on record; while the
// service lives, in which it was shown last.
func (l *lane) found(victim, mailbox string) string {
	if hits(victim, "service") {
		return l.onRecord(mailbox)
	}
	r, _, _ := l.follower.now()
	c, _ := newest(r, mailbox)
	return string(c.State)
}

func (l *lane) restart(victim string) {
	l.t.Helper()
	ctx := l.within()
	if hits(victim, "server") {
		l.must(l.StartServer(ctx))
	}
	if hits(victim, "service") {
		l.must(l.StartAgent(ctx))
		l.follow()
	}
	if hits(victim, "helper") {
		l.helper = l.login(l.session())
	}
}

// recover waits until the mailbox is served. A move that was not acknowledged
// may be lost; then it is made again. One that was must come to its end.
func (l *lane) recover(mailbox, move string, old status.Credential, acknowledged bool) {
	l.t.Helper()
	if !acknowledged {
		r := l.until("the service", func(r status.Report) bool { return len(r.Users) > 0 })
		if c, _ := newest(r, mailbox); c.ID == old.ID && c.State == old.State && old.State == enroll.Wanted {
			_, _ = l.Agent(l.within(), move, mailbox) // refused if it was taken after all
		}
	}
	l.until("health of "+mailbox, func(r status.Report) bool {
		c, ok := newest(r, mailbox)
		renewed := !acknowledged || move != "renew" || c.ID != old.ID
		return ok && renewed && settled(mailbox)(r)
	})
}

// finish lets everything come to rest and has the oracle judge.
func (l *lane) finish(y *tally) {
	l.t.Helper()
	r := l.until("rest", func(r status.Report) bool {
		for _, m := range l.mailboxes {
			if c, _ := newest(r, m); c.State != enroll.Wanted && c.State != enroll.Active {
				return false
			}
		}
		return true
	})
	l.keepLedger()
	v, err := l.oracle().judge(r)
	if err != nil {
		l.t.Errorf("seen by the oracle in %s:\n%v", l.store, err)
	}
	l.checkAudit()
	l.checkTold(r)
	y.mu.Lock()
	defer y.mu.Unlock()
	y.total.keys += v.keys
	y.total.certificates += v.certificates
	y.total.decrypted += v.decrypted
	y.farthest = max(y.farthest, l.follower.waited())
	if v.keys != v.certificates || v.keys != v.decrypted {
		l.t.Errorf("I2: %d keys, %d certificates, %d decrypt", v.keys, v.certificates, v.decrypted)
	}
}

// checkTold holds that the audit trail tells of each step of each credential,
// and of none twice, whatever was killed: the step and its event are on record
// as one (I1).
func (l *lane) checkTold(r status.Report) {
	l.t.Helper()
	told := map[string]int{}
	for _, line := range l.audit() {
		told[line.text("enrollment")+" "+line.text("event")]++
	}
	for _, c := range r.Credentials {
		if c.State != enroll.Active && c.State != enroll.Kept || c.Reason == enroll.ReasonAdopted {
			continue
		}
		for _, event := range way[1:] {
			n := told[string(c.ID)+" "+string(event)]
			again := event == enroll.EventInstalled || event == enroll.EventProved // repaired, proved anew
			if n == 0 || n > 1 && !again {
				l.t.Errorf("I1: %s of %s is told of %d times", event, c.ID, n)
			}
		}
	}
}
