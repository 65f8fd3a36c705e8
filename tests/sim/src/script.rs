pub fn main(_: &[String]) -> anyhow::Result<()> {
    Ok(())
}
