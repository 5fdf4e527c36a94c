import { CommandRegistry } from '@lumino/commands';
import { closeIcon, launchIcon } from '@jupyterlab/ui-components';
import React, { useState } from 'react';

import { moonIcon } from '../icons';
import { IconButton, Phase, Said, Section, TextButton, Trouble, useSeen } from '../parts';
import { WorkspaceModel } from './model';

const READ = 'torpor:read-notice';

export function WorkspaceSection(props: {
  model: WorkspaceModel;
  commands: CommandRegistry;
}): JSX.Element {
  const { model, commands } = props;
  const { value, problem } = useSeen(model.workspace);
  const status = value?.status;
  return (
    <Section title="Workspace">
      <div className="tp-workspace">
        <div className="tp-workspace-head">
          <span className="tp-workspace-name" title={model.config.name}>
            {value?.name ?? model.config.name}
          </span>
          {status && <Phase phase={status.phase} old={problem !== null} />}
        </div>
        <dl className="tp-facts">
          <div>
            <dt>Tenant</dt>
            <dd>{value?.tenant ?? model.config.tenant}</dd>
          </div>
          {value && (
            <div>
              <dt>Profile</dt>
              <dd>{value.spec.profile}</dd>
            </div>
          )}
        </dl>
        <Trouble problem={problem} />
        <Said message={status?.message} nextStep={status?.next_step} />
        {status?.progress !== null && status?.progress !== undefined && (
          <progress
            className="tp-progress"
            max={100}
            value={status.progress}
            aria-label={status.message}
          />
        )}
        {status?.notice && (
          <Notice key={status.notice} text={status.notice} />
        )}
        <div className="tp-buttons">
          {model.may('cancel') ? (
            <TextButton
              label="Keep working"
              onClick={() => void commands.execute('torpor:keep-working')}
            />
          ) : (
            <TextButton
              icon={moonIcon}
              label="Sleep now…"
              title="Give CPU and memory back; what you installed is kept"
              disabled={!model.may('sleep')}
              onClick={() => void commands.execute('torpor:sleep')}
            />
          )}
          <TextButton
            icon={launchIcon}
            label="Open page"
            title="Open the page of this workspace on the platform"
            onClick={() => void commands.execute('torpor:open-page')}
          />
        </div>
      </div>
    </Section>
  );
}

/** What the platform tells once, until the reader has put it away. */
function Notice(props: { text: string }): JSX.Element | null {
  const [read, setRead] = useState(
    () => window.localStorage.getItem(READ) === props.text
  );
  const putAway = () => {
    window.localStorage.setItem(READ, props.text);
    setRead(true);
  };
  return read ? null : (
    <div className="tp-notice" role="note">
      <p>{props.text}</p>
      <IconButton icon={closeIcon} label="Put away" onClick={putAway} />
    </div>
  );
}
