//! Three nodes, as threads of this process or as processes of their own, under the same orders.
//!
//! A node in a process of its own is this program with `node` as its command: orders are lines on its standard input,
//! reports are lines on its standard output.

use crate::{
    measure::{Cell, Figures, cpu_seconds_of, from_hex, histogram, own_cpu_seconds, to_hex},
    node::{self, CLUSTER, Desk, NODES, Order, Plan, Ran, Report},
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tidemill_peer::{AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, NodeId, authority::Authority};

/// A node answers an order after the time of the cell and a little; so much later it never will.
const PATIENCE: Duration = Duration::from_secs(90);
const DAY: Duration = Duration::from_secs(86_400);

/// How the nodes are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    OneProcess,
    ThreeProcesses,
}

/// Three nodes that lead their groups.
pub struct Cluster {
    seats: Vec<Seat>,
    shape: Shape,
}

struct Seat {
    reports: mpsc::Receiver<Report>,
    runs: Runs,
}

enum Runs {
    Thread { desk: Desk, thread: Option<JoinHandle<Result<()>>> },
    Process { child: Child, orders: ChildStdin },
}

/// Certificates of a new authority, a folder for each node.
pub fn make_certificates(folder: &Path) -> Result<()> {
    let (authority, root) = Authority::make(CLUSTER, DAY)?;
    for node in 1..=NODES {
        let folder = folder.join(node.to_string());
        fs::create_dir_all(&folder)?;
        let issued = authority.issue(NodeId(node), DAY)?;
        fs::write(folder.join(AUTHORITY_FILE), &root.certificate_pem)?;
        fs::write(folder.join(CERTIFICATE_FILE), &issued.certificate_pem)?;
        fs::write(folder.join(KEY_FILE), &issued.key_pem)?;
    }
    Ok(())
}

impl Cluster {
    /// Returns once every group has its leader.
    pub fn start(shape: Shape, plans: Vec<Plan>) -> Result<Cluster> {
        let seats = plans.into_iter().map(|plan| Seat::start(shape, plan)).collect::<Result<_>>()?;
        let mut cluster = Cluster { seats, shape };
        cluster.settle()?;
        Ok(cluster)
    }

    /// Returns once every group is led by whom it is to be led: on a busy machine leaders change by themselves.
    fn settle(&mut self) -> Result<()> {
        self.seats.iter_mut().try_for_each(|seat| seat.order(Order::Settle))?;
        self.seats.iter().try_for_each(|seat| match seat.report()? {
            Report::Ready => Ok(()),
            other => bail!("a node is not ready but says {other:?}"),
        })
    }

    fn cpu_seconds(&self) -> Result<f64> {
        let mut sum = if self.shape == Shape::OneProcess { own_cpu_seconds() } else { 0.0 };
        for seat in &self.seats {
            if let Runs::Process { child, .. } = &seat.runs {
                sum += cpu_seconds_of(child.id())?;
            }
        }
        Ok(sum)
    }

    pub fn run(&mut self, cell: Cell) -> Result<Figures> {
        self.settle()?;
        for seat in &mut self.seats {
            seat.order(Order::Run(cell))?;
        }
        std::thread::sleep(cell.warm_up);
        let cpu_before = self.cpu_seconds()?;
        std::thread::sleep(cell.length);
        let cpu_seconds = self.cpu_seconds()? - cpu_before;
        let (mut latency, mut commits, mut seconds, mut note) = (histogram(), 0, 0.0, Vec::new());
        for seat in &self.seats {
            let Report::Ran(ran) = seat.report()? else { bail!("a node said something else") };
            latency.add(&ran.latency)?;
            commits += ran.commits;
            seconds = ran.seconds;
            let mean = ran.log_bytes as f64 / ran.log_commits.max(1) as f64 / 1024.0;
            note.push(format!("{:.0} x {mean:.0} KiB", ran.log_commits as f64 / ran.seconds));
            if ran.refused > 0 {
                note.push(format!("{} refused", ran.refused));
            }
        }
        Ok(Figures { commits, seconds, latency, cpu_seconds, client_cpu_seconds: 0.0, note: note.join(", ") })
    }

    /// Fails unless all nodes come to have applied the same.
    pub fn check(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let mut digests = Vec::new();
            for seat in &mut self.seats {
                seat.order(Order::Count)?;
                let Report::Counted { digest } = seat.report()? else { bail!("a node said something else") };
                digests.push(digest);
            }
            if digests.iter().all(|digest| *digest == digests[0]) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("the nodes have applied different things: {digests:x?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn stop(mut self) -> Result<()> {
        for seat in &mut self.seats {
            seat.order(Order::Stop)?;
        }
        self.seats.iter_mut().try_for_each(Seat::end)
    }
}

impl Seat {
    fn start(shape: Shape, plan: Plan) -> Result<Seat> {
        let (sender, reports) = mpsc::channel();
        let runs = match shape {
            Shape::OneProcess => {
                let desk = Desk { orders: Default::default(), reports: sender };
                let its_desk = desk.clone();
                let thread = std::thread::Builder::new()
                    .name(format!("node-{}", plan.node))
                    .spawn(|| node::run(plan, its_desk))?;
                Runs::Thread { desk, thread: Some(thread) }
            }
            Shape::ThreeProcesses => {
                let mut child = Command::new(std::env::current_exe()?)
                    .arg("node")
                    .args(arguments(&plan))
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()?;
                let orders = child.stdin.take().context("the standard input of a node")?;
                let lines = BufReader::new(child.stdout.take().context("the standard output of a node")?).lines();
                std::thread::spawn(move || {
                    for line in lines.map_while(Result::ok) {
                        let report = read_report(&line).unwrap_or_else(|error| Report::Failed(format!("{error:#}")));
                        if sender.send(report).is_err() {
                            return;
                        }
                    }
                });
                Runs::Process { child, orders }
            }
        };
        Ok(Seat { reports, runs })
    }

    fn order(&mut self, order: Order) -> Result<()> {
        match &mut self.runs {
            Runs::Thread { desk, .. } => desk.order(order),
            Runs::Process { orders, .. } => writeln!(orders, "{}", order_line(order))?,
        }
        Ok(())
    }

    fn report(&self) -> Result<Report> {
        match self.reports.recv_timeout(PATIENCE).context("a node says nothing any more")? {
            Report::Failed(why) => bail!("a node has failed: {why}"),
            report => Ok(report),
        }
    }

    fn end(&mut self) -> Result<()> {
        match &mut self.runs {
            Runs::Thread { thread, .. } => {
                let thread = thread.take().context("a node ends once")?;
                thread.join().map_err(|_| anyhow::anyhow!("a node panicked"))?
            }
            Runs::Process { child, .. } => {
                let status = child.wait()?;
                anyhow::ensure!(status.success(), "a node ended with {status}");
                Ok(())
            }
        }
    }
}

impl Drop for Seat {
    /// A run that was given up leaves no processes behind.
    fn drop(&mut self) {
        if let Runs::Process { child, .. } = &mut self.runs
            && matches!(child.try_wait(), Ok(None))
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The command line of a node in a process of its own; `NodeArguments` reads it.
fn arguments(plan: &Plan) -> Vec<String> {
    let mut arguments = vec![
        format!("--node={}", plan.node),
        format!("--folder={}", plan.folder.display()),
        format!("--certificates={}", plan.certificates.display()),
        format!("--first-port={}", plan.first_port),
        format!("--groups={}", plan.groups),
        format!("--processor={}", plan.processor),
        format!("--mtu={}", plan.mtu),
        format!("--spin={}", plan.spin.as_micros()),
    ];
    if plan.dsync {
        arguments.push("--dsync".into());
    }
    arguments
}

/// A node in this process, with its orders and reports as lines.
pub fn serve_lines(plan: Plan) -> Result<()> {
    let (sender, reports) = mpsc::channel();
    let desk = Desk { orders: Default::default(), reports: sender };
    let orders = desk.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if let Ok(order) = read_order(&line) {
                orders.order(order);
            }
        }
        // Who gave the orders is gone.
        orders.order(Order::Stop);
    });
    let writer = std::thread::spawn(move || {
        for report in reports {
            println!("{}", report_line(&report));
        }
    });
    let outcome = node::run(plan, desk);
    // The reader of orders keeps a sender as long as the standard input is open: the writer is not waited for.
    drop(writer);
    outcome
}

fn order_line(order: Order) -> String {
    match order {
        Order::Run(Cell { window, payload_bytes, warm_up, length }) => {
            format!("run {window} {payload_bytes} {} {}", warm_up.as_micros(), length.as_micros())
        }
        Order::Settle => "settle".into(),
        Order::Count => "count".into(),
        Order::Stop => "stop".into(),
    }
}

fn read_order(line: &str) -> Result<Order> {
    let parts: Vec<&str> = line.split(' ').collect();
    Ok(match parts[..] {
        ["run", window, payload_bytes, warm_up, length] => Order::Run(Cell {
            window: window.parse()?,
            payload_bytes: payload_bytes.parse()?,
            warm_up: Duration::from_micros(warm_up.parse()?),
            length: Duration::from_micros(length.parse()?),
        }),
        ["settle"] => Order::Settle,
        ["count"] => Order::Count,
        ["stop"] => Order::Stop,
        _ => bail!("{line:?} is no order"),
    })
}

fn report_line(report: &Report) -> String {
    match report {
        Report::Ready => "ready".into(),
        Report::Counted { digest } => format!("counted {digest}"),
        Report::Failed(why) => format!("failed {}", why.replace('\n', " ")),
        Report::Ran(Ran { commits, seconds, latency, log_commits, log_bytes, refused }) => match to_hex(latency) {
            Ok(latency) => format!("ran {commits} {seconds} {latency} {log_commits} {log_bytes} {refused}"),
            Err(error) => format!("failed {error}"),
        },
    }
}

fn read_report(line: &str) -> Result<Report> {
    if let Some(why) = line.strip_prefix("failed ") {
        return Ok(Report::Failed(why.to_owned()));
    }
    let parts: Vec<&str> = line.split(' ').collect();
    Ok(match parts[..] {
        ["ready"] => Report::Ready,
        ["counted", digest] => Report::Counted { digest: digest.parse()? },
        ["ran", commits, seconds, latency, log_commits, log_bytes, refused] => Report::Ran(Ran {
            commits: commits.parse()?,
            seconds: seconds.parse()?,
            latency: from_hex(latency)?,
            log_commits: log_commits.parse()?,
            log_bytes: log_bytes.parse()?,
            refused: refused.parse()?,
        }),
        _ => bail!("{line:?} is no report"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_come_back_from_their_lines() {
        let cell = Cell {
            window: 16,
            payload_bytes: 1024,
            warm_up: Duration::from_millis(500),
            length: Duration::from_secs(4),
        };
        let Order::Run(back) = read_order(&order_line(Order::Run(cell))).unwrap() else { panic!("an order to run") };
        assert_eq!(back, cell);
        assert!(matches!(read_order("stop"), Ok(Order::Stop)) && read_order("run 1").is_err());
        let mut latency = histogram();
        latency.saturating_record(1_234_567);
        let ran = Ran { commits: 5, seconds: 4.0, latency, log_commits: 3, log_bytes: 8192, refused: 1 };
        let Report::Ran(back) = read_report(&report_line(&Report::Ran(ran))).unwrap() else { panic!("a report") };
        assert_eq!((back.commits, back.latency.len(), back.log_bytes, back.refused), (5, 1, 8192, 1));
        assert!(matches!(read_report("counted 7"), Ok(Report::Counted { digest: 7 })) && read_report("ran").is_err());
    }
}
