package refresh

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// office answers claims as the database would, of as many views as it has.
type office struct {
	mu      sync.Mutex
	left    []schedule.Claim
	claims  []int         // for how many slots each was
	settled []bool        // what each was told
	hold    chan struct{} // the first claim takes until it is closed
	fail    func(nth int) error
}

func (o *office) claim(slots int, settled bool) ([]schedule.Claim, error) {
	o.mu.Lock()
	o.claims, o.settled = append(o.claims, slots), append(o.settled, settled)
	nth := len(o.claims)
	o.mu.Unlock()
	if nth == 1 && o.hold != nil {
		<-o.hold
	}
	if o.fail != nil {
		if err := o.fail(nth); err != nil {
			return nil, err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(slots, len(o.left))
	for n > 0 && n < len(o.left) && o.left[n].Group != "" && o.left[n].Group == o.left[n-1].Group {
		n++ // a group comes as a whole
	}
	claims := o.left[:n]
	o.left = o.left[n:]
	return claims, nil
}

// claimAll lets so many slots claim, the first of them alone and the others meanwhile, and says what each got.
func (o *office) claimAll(t *testing.T, slots int, settled func(slot int) bool) (got [][]schedule.Claim, errs []error) {
	t.Helper()
	got, errs = make([][]schedule.Claim, slots), make([]error, slots)
	synctest.Test(t, func(*testing.T) {
		o.hold = make(chan struct{})
		shared := newSharedClaims()
		var all sync.WaitGroup
		for i := range slots {
			all.Go(func() {
				defer func() {
					if bug := recover(); bug != nil {
						errs[i] = fmt.Errorf("panic: %v", bug)
					}
				}()
				got[i], errs[i] = shared.claim(settled(i), false, o.claim)
			})
			synctest.Wait() // until it claims, or waits for who does
		}
		close(o.hold)
		all.Wait()
		if shared.busy || len(shared.waiting) > 0 {
			t.Errorf("in the end somebody claims: %v, and %d wait", shared.busy, len(shared.waiting))
		}
	})
	return got, errs
}

func views(n int) (claims []schedule.Claim) {
	for i := range n {
		claims = append(claims, schedule.Claim{ExecutionID: int64(i)})
	}
	return claims
}

// Who waits while one slot claims gets its view from one more claim, and nobody gets what somebody else has.
func TestSlotsShareAClaim(t *testing.T) {
	o := &office{left: views(4)}
	got, errs := o.claimAll(t, 5, func(slot int) bool { return slot != 3 })
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.claims, []int{1, 4}) {
		t.Errorf("claimed for %v slots, want one, then four", o.claims)
	}
	if !slices.Equal(o.settled, []bool{true, false}) {
		t.Errorf("said to be settled: %v; one of the four had something to settle", o.settled)
	}
	for i, claims := range got {
		if want := min(1, 4-i); len(claims) != want || want == 1 && claims[0].ExecutionID != int64(i) {
			t.Errorf("slot %d got %v", i, claims)
		}
	}
}

// A group is one slot's, however many views it has; who came away empty for that claims again.
func TestSharedGroup(t *testing.T) {
	all := views(6)
	for i := 1; i < 4; i++ {
		all[i].Group = "reporting"
	}
	o := &office{left: all}
	got, errs := o.claimAll(t, 4, func(int) bool { return true })
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for _, claims := range got {
		sizes = append(sizes, len(claims))
	}
	if !slices.Equal(sizes, []int{1, 3, 1, 1}) || !slices.Equal(o.claims, []int{1, 3, 2}) {
		t.Errorf("the slots got %v views in claims for %v", sizes, o.claims)
	}
}

// When a claim goes wrong, that is its slot's affair: the others claim for themselves.
func TestSharedClaimFails(t *testing.T) {
	for name, fail := range map[string]func() error{
		"an error": func() error { return errors.New("no connection") },
		"a panic":  func() error { panic("no connection") },
	} {
		t.Run(name, func(t *testing.T) {
			o := &office{left: views(9), fail: func(nth int) error {
				if nth < 3 {
					return fail()
				}
				return nil
			}}
			got, errs := o.claimAll(t, 5, func(int) bool { return true })
			for i := range got {
				if failed := i < 2; failed != (errs[i] != nil) || failed == (len(got[i]) == 1) {
					t.Errorf("slot %d got %v, %v", i, got[i], errs[i])
				}
			}
			if !slices.Equal(o.claims, []int{1, 4, 3}) {
				t.Errorf("claimed for %v slots", o.claims)
			}
		})
	}
}

// A claim that hangs holds nobody else up, and what it brings in the end is not lost.
func TestSharedClaimHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &office{left: views(9), hold: make(chan struct{})}
		shared := newSharedClaims()
		var first, others sync.WaitGroup
		first.Go(func() {
			if got, err := shared.claim(true, false, o.claim); len(got) != 1 || err != nil {
				t.Errorf("the first got %v, %v", got, err)
			}
		})
		synctest.Wait()
		for range 3 {
			others.Go(func() {
				if got, err := shared.claim(true, false, o.claim); len(got) != 1 || err != nil {
					t.Errorf("another one got %v, %v", got, err)
				}
			})
		}
		others.Wait()
		if !slices.Equal(o.claims, []int{1, 1, 1, 1}) {
			t.Errorf("claimed for %v slots", o.claims)
		}
		close(o.hold)
		first.Wait()
	})
	synctest.Test(t, func(t *testing.T) {
		o, second := &office{left: views(9), hold: make(chan struct{})}, make(chan struct{})
		o.fail = func(nth int) error {
			if nth == 2 {
				<-second
			}
			return nil
		}
		shared := newSharedClaims()
		var first sync.WaitGroup
		var ids sync.Map
		claim := func() {
			got, err := shared.claim(true, false, o.claim)
			if len(got) != 1 || err != nil {
				t.Errorf("got %v, %v", got, err)
				return
			}
			if _, twice := ids.LoadOrStore(got[0].ExecutionID, true); twice {
				t.Errorf("view %d was given away twice", got[0].ExecutionID)
			}
		}
		first.Go(claim)
		synctest.Wait()
		for range 3 {
			first.Go(claim) // the first of them claims for all, and hangs
			synctest.Wait()
		}
		close(o.hold)
		<-time.After(2 * sharePatience) // the other two lose patience
		close(second)
		first.Wait()
		for range 2 {
			if left := shared.leftOver(false); len(left) != 1 {
				t.Errorf("%d views were left over for the next slot", len(left))
			}
		}
		if left := shared.leftOver(false); len(left) != 0 {
			t.Errorf("views were left over that nobody has claimed: %v", left)
		}
		if !slices.Equal(o.claims, []int{1, 3, 1, 1}) {
			t.Errorf("claimed for %v slots", o.claims)
		}
	})
}

// Slots that are opened together claim together. Who does not come in time, or at all, is not waited for.
func TestSlotsArriveTogether(t *testing.T) {
	for name, test := range map[string]struct {
		arrive func(claim func())
		want   []int
	}{
		"all": {func(claim func()) { claim(); claim(); claim() }, []int{3}},
		"all but one": {func(claim func()) {
			claim()
			claim()
			<-time.After(2 * gatherPatience)
			claim()
		}, []int{2, 1}},
		"nobody else": {func(claim func()) {
			claim()
			<-time.After(2 * gatherPatience)
		}, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, shared := &office{left: views(9)}, newSharedClaims()
				shared.expect(3)
				var all sync.WaitGroup
				test.arrive(func() {
					all.Go(func() {
						if got, err := shared.claim(true, true, o.claim); len(got) != 1 || err != nil {
							t.Errorf("got %v, %v", got, err)
						}
					})
					synctest.Wait()
				})
				all.Wait()
				if !slices.Equal(o.claims, test.want) {
					t.Errorf("claimed for %v slots, want %v", o.claims, test.want)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		o, shared, began := &office{left: views(9)}, newSharedClaims(), time.Now()
		shared.expect(2)
		shared.stayAway()
		if got, err := shared.claim(true, true, o.claim); len(got) != 1 || err != nil || time.Since(began) > 0 {
			t.Errorf("got %v, %v after %s", got, err, time.Since(began))
		}
	})
}
